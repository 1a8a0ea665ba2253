# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking the snapshot that a backup reads from.

Invariants: never with memory; a call whose answer was lost is looked for before it is made again; what was asked for
and did not come to be is not left behind.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Optional

from ..core.errors import VmbackupError
from ..core.vm.lease import Lease
from .session import Session
from .snapshot_removal import remove_snapshot
from .snapshot_tree import OurSnapshot, find_snapshot, our_snapshots, renew_if_allowed
from .tasks import wait_task

_SETTLE = 10.0


def create_snapshot(session: Session, vm_obj: Any, lease: Lease, *, quiesce: str, timeout: float) -> OurSnapshot:
    """Take the snapshot of a powered-on VM, never with memory, and renew its lease once.

    quiesce: required, preferred (without it where it fails; the note says why) or never.
    timeout: seconds without progress after which the task counts as hung.
    Raises quiesce_failed, datastore_full, task_stalled, vm_state and other faults; then nothing of ours is left, as
    far as the server let us look.
    """
    note = ""
    lease = replace(lease, renewed=None)
    if quiesce != "never":
        try:
            _require_tools(session, vm_obj)
            return _create(session, vm_obj, lease, True, timeout)
        except VmbackupError as error:
            if error.code != "quiesce_failed" or quiesce == "required":
                raise
            note = error.message
    return replace(_create(session, vm_obj, lease, False, timeout), note=note)


def _require_tools(session: Session, vm_obj: Any) -> None:
    """ESX takes a snapshot of a guest without running VMware Tools without a word, and it is not quiesced."""
    what = "reading the state of VMware Tools in VM " + session.title(vm_obj)
    state = session.ask(what, lambda: vm_obj.guest.toolsRunningStatus, True)
    if state != "guestToolsRunning":
        raise VmbackupError(
            "quiesce_failed",
            "VM {} cannot be quiesced: VMware Tools is not running in the guest ({})".format(
                session.title(vm_obj), state
            ),
            "start VMware Tools in the guest, or set quiesce to preferred or never",
        )


def _create(session: Session, vm_obj: Any, lease: Lease, quiesced: bool, timeout: float) -> OurSnapshot:
    what = "taking a snapshot of VM " + session.title(vm_obj)
    try:
        snapshot = _taken(session, vm_obj, lease, quiesced, timeout, what)
    except VmbackupError as error:
        raise _cleared(session, vm_obj, lease, timeout, error) from error
    return renew_if_allowed(session, vm_obj, replace(snapshot, quiesced=quiesced))


def _taken(session: Session, vm_obj: Any, lease: Lease, quiesced: bool, timeout: float, what: str) -> OurSnapshot:
    def start() -> Any:
        return vm_obj.CreateSnapshot_Task(
            name=lease.name, description=lease.description, memory=False, quiesce=quiesced
        )

    try:
        task = session.ask(what, start)
    except VmbackupError as error:
        if error.code != "esx_unreachable":
            raise
        # The call may have had its effect though its answer was lost: look before asking again.
        late = _late_arrival(session, vm_obj, lease, timeout)
        if late is not None:
            return late
        task = session.ask(what, start)
    reference = wait_task(session, task, what, timeout=timeout)
    for each in our_snapshots(session, vm_obj):
        if each.moid == reference._moId:
            return each
    raise VmbackupError(
        "snapshot_lost",
        "{}: the task succeeded, but the snapshot {} is not in the tree".format(what, lease.name),
        "another task may have removed it; run again",
    )


def _late_arrival(session: Session, vm_obj: Any, lease: Lease, timeout: float) -> Optional[OurSnapshot]:
    """Look for a snapshot whose answer was lost, for as long as a task may still be making it."""
    start = time.monotonic()
    while True:
        creating, found = _is_creating(session, vm_obj), find_snapshot(session, vm_obj, lease.id)
        if found is not None and not creating:
            return found
        if time.monotonic() - start >= (timeout if creating else min(_SETTLE, timeout)):
            return found
        time.sleep(0.5)


def _is_creating(session: Session, vm_obj: Any) -> bool:
    what = "reading the recent tasks of VM " + session.title(vm_obj)
    return any(_creates(session, task, what) for task in session.ask(what, lambda: vm_obj.recentTask, True) or ())


def _creates(session: Session, task: Any, what: str) -> bool:
    try:
        info = session.ask(what, lambda: task.info, True)
    except VmbackupError as error:
        if error.code == "object_gone":  # the server forgets tasks that have ended
            return False
        raise
    return info.descriptionId == "VirtualMachine.createSnapshot" and info.state in ("queued", "running")


def _cleared(session: Session, vm_obj: Any, lease: Lease, timeout: float, error: VmbackupError) -> VmbackupError:
    """Remove what a failed creation left behind; what comes later still is for the next run to reap."""
    try:
        if find_snapshot(session, vm_obj, lease.id) is not None:
            remove_snapshot(session, vm_obj, lease.id, timeout=timeout)
    except VmbackupError as second:
        return VmbackupError(error.code, "{}; also: {}".format(error.message, second.message), error.hint)
    return error
