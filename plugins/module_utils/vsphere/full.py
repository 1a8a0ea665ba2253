# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Phase I from the snapshot to the committed backup.

Invariant: what is committed was read in full from disks that stood still: under a snapshot of ours that was there to
the end, or of a VM that stayed powered off and unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, ContextManager, Protocol

from ..core.errors import VmbackupError
from ..core.store.manifest import Manifest
from ..core.store.names import ARCHIVE
from ..core.vm.coverage import judge
from ..core.vm.facts import VmFacts
from ..core.vm.lease import ORPHAN_AFTER, Lease
from .claim import Rules, claim
from .datastore import DatastoreReader
from .facts import read_facts
from .frozen import FrozenVm, frozen_vm
from .full_order import FullOrder
from .held import HeldSnapshot
from .manifest_of_full import Reading, manifest_of
from .packing import pack
from .session import Session
from .snapshot_tree import OurSnapshot, find_snapshot

STALL = 60.0  # seconds without a byte, after which a download is taken up again at the latest
ATTEMPTS = 3  # a VM that changes its power state every time it is packed is given up


class Destination(Protocol):
    """Where a backup grows: invisible until `commit`."""

    def sink(self, name: str) -> Any:
        """Open a file of the backup for writing."""

    def commit(self, manifest: Manifest, *, verify: bool) -> str:
        """Make the backup visible; return where it lies. verify: read everything again first."""


@dataclass(frozen=True)
class FullResult:
    """A committed full."""

    path: str
    manifest: Manifest
    reading: Reading
    held: HeldSnapshot


def make_full(
    session: Session, vm_obj: Any, order: FullOrder, destination: Callable[[], ContextManager[Destination]]
) -> FullResult:
    """Pack and commit one full backup of a VM.

    destination: opens a new, empty place; what is left there without a commit is discarded.
    Raises VmbackupError; then nothing is visible, and the caller releases the snapshot.
    """
    snapshot = find_snapshot(session, vm_obj, order.backup_id)
    for attempt in range(ATTEMPTS if order.restartable else 1):
        facts = read_facts(session, vm_obj)
        judge(facts, order.policy).require()
        if snapshot is None and facts.power_state != "powered_off":
            snapshot = _late_snapshot(session, vm_obj, order, attempt)
        with destination() as place:
            held = HeldSnapshot(session, vm_obj, snapshot, order.task_timeout, order.lock_dir)
            try:
                reading = _read(session, vm_obj, order, held, place)
            except VmbackupError:
                held.require_present()  # where the snapshot is gone, that is why the reading failed
                if snapshot is not None or not _moved(facts, read_facts(session, vm_obj)):
                    raise
                continue  # it was powered on under the reader, and that is why the reading failed
            if snapshot is None and _moved(facts, read_facts(session, vm_obj)):
                continue
            manifest = manifest_of(facts, order, held, reading)
            return FullResult(place.commit(manifest, verify=order.verify), manifest, reading, held)
    raise VmbackupError(
        "vm_changed",
        "VM {} changed its power state or configuration while it was packed.".format(order.vm),
        "Run the backup again when the VM is left alone.",
    )


def _read(session: Session, vm_obj: Any, order: FullOrder, held: HeldSnapshot, place: Destination) -> Reading:
    started = order.now()
    frozen = _look(session, vm_obj, order, held)

    def last_byte() -> None:
        if held.snapshot is not None:
            held.require_present()
            _require_still(frozen, _look(session, vm_obj, order, held))
        held.release()

    sink = place.sink(ARCHIVE)
    with held, DatastoreReader(session, vm_obj, timeout=min(STALL, order.task_timeout)) as reader:
        reader.probe(frozen)
        packed = pack(
            reader,
            frozen,
            order.packing,
            sink,
            scratch=order.scratch,
            mtime=int(started.timestamp()),
            after_last_byte=last_byte,
        )
    sink.close()
    return Reading(frozen, packed, started, order.now())


def _look(session: Session, vm_obj: Any, order: FullOrder, held: HeldSnapshot) -> FrozenVm:
    return frozen_vm(
        session,
        vm_obj,
        held.snapshot.moid if held.snapshot else None,
        exclude_disks=order.policy.exclude_disks,
        include_logs=order.packing.include_logs,
    )


def _require_still(before: FrozenVm, after: FrozenVm) -> None:
    """Raise when links were merged or moved under the reader: ESX gives the name of a deleted delta to the next one."""
    for disk, now in zip(before.disks, after.disks):
        if disk.links != now.links:
            raise VmbackupError(
                "disks_moved",
                "The files of disk '{}' changed while it was read, from {} to {}.".format(
                    disk.label,
                    ", ".join(link.descriptor for link in disk.links),
                    ", ".join(link.descriptor for link in now.links),
                ),
                "Run the backup again; do not remove snapshots or move disks of a VM while it is backed up.",
            )


def _late_snapshot(session: Session, vm_obj: Any, order: FullOrder, attempt: int) -> OurSnapshot:
    """Snapshot a VM that was powered on while it was packed; without that excuse vm_snapshot should have run.

    Another controller may have come to the running VM first, so the right to it is claimed. No lock can be asked here:
    an orphan shows by its lease alone.
    """
    if not attempt:
        raise VmbackupError(
            "snapshot_missing",
            "VM {} is powered on and has no snapshot for the backup {}.".format(order.vm, order.backup_id),
            "Run vm_snapshot with the same backup_id first.",
        )
    lease = Lease(
        id=order.backup_id,
        run=order.run,
        controller_id=order.controller_id,
        renewed=None,
        as_of=order.now(),
    )
    rules = Rules(order.quiesce, order.task_timeout, lambda _lease: False, ORPHAN_AFTER, order.lock_dir)
    return claim(session, vm_obj, lease, rules)


def _moved(before: VmFacts, after: VmFacts) -> bool:
    """Tell whether a VM was powered on, reconfigured, or put on other disk files between two looks."""

    def standing(facts: VmFacts) -> Any:
        return facts.power_state, facts.boot_time, facts.change_version, facts.disks, facts.snapshots

    return bool(standing(before) != standing(after))
