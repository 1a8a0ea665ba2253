# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our snapshots in the snapshot tree of a VM: finding them, renewing their leases.

Invariant: a snapshot is ours only by its name and its description together, wherever in the tree it stands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Iterator, List, Optional

from ..core.errors import VmbackupError
from ..core.vm.lease import Lease, parse_lease
from .pyvmomi import vim
from .session import Session


@dataclass(frozen=True)
class OurSnapshot:
    """A snapshot of ours as it stands in the tree.

    moid: its id. created: the server's clock. quiesced: whether it was taken quiesced.
    note: why it is not quiesced though that was preferred; "" otherwise.
    """

    moid: str
    name: str
    lease: Lease
    created: datetime
    quiesced: bool
    note: str = ""


def our_snapshots(session: Session, vm_obj: Any) -> List[OurSnapshot]:
    """Return all snapshots of ours, from the whole tree of a VM."""
    found = ((node, parse_lease(node.name, node.description or "")) for node in _nodes(session, vm_obj))
    return [
        OurSnapshot(node.snapshot._moId, node.name, lease, node.createTime, bool(node.quiesced))
        for node, lease in found
        if lease is not None
    ]


def find_snapshot(session: Session, vm_obj: Any, backup_id: str) -> Optional[OurSnapshot]:
    """Return this backup's snapshot, or None."""
    return next((each for each in our_snapshots(session, vm_obj) if each.lease.id == backup_id), None)


def snapshot_ids(session: Session, vm_obj: Any) -> List[str]:
    """Return the ids of all snapshots of a VM, whoever's they are."""
    return [node.snapshot._moId for node in _nodes(session, vm_obj)]


def _nodes(session: Session, vm_obj: Any) -> Iterator[Any]:
    return nodes_of(session.ask("reading the snapshots of VM " + session.title(vm_obj), lambda: vm_obj.snapshot, True))


def nodes_of(info: Any) -> Iterator[Any]:
    """Walk the whole tree of a VM's `snapshot` property, which is unset for a VM without snapshots."""
    waiting = list(info.rootSnapshotList) if info is not None else []
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.childSnapshotList)


def renew_lease(session: Session, vm_obj: Any, snapshot: OurSnapshot, lease: Lease) -> OurSnapshot:
    """Write the server's present time into the description of a snapshot of ours; return the snapshot as it is now.

    Raises esx_permission (VirtualMachine.State.RenameSnapshot), esx_licence and other faults.
    """
    renewed = lease.renewed_at(session.now())
    reference = vim.vm.Snapshot(snapshot.moid, session.si._stub)
    session.ask(
        "renewing the lease of snapshot {} of VM {}".format(snapshot.name, session.title(vm_obj)),
        lambda: reference.RenameSnapshot(name=renewed.name, description=renewed.description),
        True,
    )
    return replace(snapshot, lease=renewed)


def renew_if_allowed(session: Session, vm_obj: Any, snapshot: OurSnapshot) -> OurSnapshot:
    """Renew a lease where the user may: one that was never renewed says that it cannot be, and is trusted for longer."""
    try:
        return renew_lease(session, vm_obj, snapshot, snapshot.lease)
    except VmbackupError:
        return snapshot
