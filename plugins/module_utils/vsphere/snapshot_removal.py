# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removing a snapshot of ours.

Invariants: "removed" means that the tree, the disks and consolidationNeeded say so, not that a task succeeded; no
children are removed, and nobody else's snapshot.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Callable, Dict

from ..core.errors import VmbackupError
from .pyvmomi import vim
from .session import Session
from .snapshot_tree import OurSnapshot, find_snapshot, our_snapshots
from .tasks import wait_task
from .unmerged import forget_removal, mark_removal, needs_consolidation

_TRIES = 6
_PAUSE = 2.0
_IN_TREE = "the snapshot is still in the tree"
_HOPELESS = ("esx_permission", "esx_licence", "esx_login", "task_stalled")


@dataclass(frozen=True)
class Removal:
    """How a removal went. seconds: in all. tries: 0 when there was nothing to do. consolidated: disks had to be."""

    seconds: float
    tries: int
    consolidated: bool


def remove_snapshot(
    session: Session,
    vm_obj: Any,
    backup_id: str,
    *,
    timeout: float,
    lock_dir: str = "",
    tries: int = _TRIES,
    pause: float = _PAUSE,
    sleep: Callable[[float], None] = time.sleep,
) -> Removal:
    """Remove this backup's snapshot and make sure that it is gone; doing it again is no error.

    timeout: seconds without progress after which a task counts as hung; the pauses together are no longer.
    lock_dir: where the removal is marked until it is verified, for the next run to finish it; "": nowhere.
    tries, pause: how often, and seconds before the second try; the pause doubles each time.
    Raises snapshot_not_removed, which names what is still there.
    """
    start, work, problem = time.monotonic(), _Work(session, vm_obj, backup_id, timeout, lock_dir), ""
    for number in range(tries):
        if pause * (2**number - 1) > timeout:
            break
        if number:
            sleep(pause * 2 ** (number - 1))
        try:
            problem = work.once()
        except VmbackupError as error:
            problem = str(error)
            if error.code in _HOPELESS:
                break
            continue
        if not problem:
            if work.acted and lock_dir:
                forget_removal(session, vm_obj, lock_dir)
            return Removal(time.monotonic() - start, number + 1 if work.acted else 0, work.consolidated)
    raise _not_removed(session.title(vm_obj), backup_id, problem)


class _Work:
    """One removal; it keeps from try to try what the disks looked like while the snapshot still stood."""

    def __init__(self, session: Session, vm_obj: Any, backup_id: str, timeout: float, lock_dir: str) -> None:
        self._session, self._vm_obj, self._backup_id, self._timeout = session, vm_obj, backup_id, timeout
        self._lock_dir = lock_dir
        self._wanted: Dict[int, str] = {}
        self.acted = False
        self.consolidated = False

    def once(self) -> str:
        """Do what is still to be done; say what is left then, or ""."""
        ours = [each for each in our_snapshots(self._session, self._vm_obj) if each.lease.id == self._backup_id]
        for each in ours:
            self._wanted = self._wanted or _backings_without(self._session, self._vm_obj, each)
            if self._lock_dir:
                mark_removal(self._session, self._vm_obj, self._lock_dir, each)
            self.acted = True
            _remove(self._session, self._vm_obj, each, self._timeout)
        left = self._left()
        if not left or left == _IN_TREE:
            return left
        self.acted = self.consolidated = True
        _consolidate(self._session, self._vm_obj, self._timeout)
        return self._left()

    def _left(self) -> str:
        return _remains(self._session, self._vm_obj, self._backup_id, self._wanted)


def _remove(session: Session, vm_obj: Any, snapshot: OurSnapshot, timeout: float) -> None:
    what = "removing snapshot {} of VM {}".format(snapshot.name, session.title(vm_obj))
    reference = vim.vm.Snapshot(snapshot.moid, session.si._stub)
    try:
        task = session.ask(what, lambda: reference.RemoveSnapshot_Task(removeChildren=False, consolidate=True))
        wait_task(session, task, what, timeout=timeout)
    except VmbackupError as error:
        if error.code != "object_gone":  # gone is what was wanted; the checks that follow find out
            raise


def _consolidate(session: Session, vm_obj: Any, timeout: float) -> None:
    what = "consolidating the disks of VM " + session.title(vm_obj)
    wait_task(session, session.ask(what, vm_obj.ConsolidateVMDisks_Task), what, timeout=timeout)


def _remains(session: Session, vm_obj: Any, backup_id: str, wanted: Dict[int, str]) -> str:
    """Say what is left of a snapshot, or "".

    wanted: the backing's name by disk key, as it is to be without the snapshot; empty when that is not known.
    """
    if find_snapshot(session, vm_obj, backup_id) is not None:
        return _IN_TREE
    if needs_consolidation(session, vm_obj):
        return "the disks need consolidation"
    what = "reading the disks of VM " + session.title(vm_obj)
    present = _backings(session.ask(what, lambda: vm_obj.config, True))
    wrong = [
        "{} instead of {}".format(present[key], name) for key, name in wanted.items() if present.get(key, name) != name
    ]
    return "disks are on {}".format(", ".join(wrong)) if wrong else ""


def _backings_without(session: Session, vm_obj: Any, snapshot: OurSnapshot) -> Dict[int, str]:
    """Return the name each disk's backing is to have when the snapshot is gone.

    While ours is the current snapshot, the VM writes to our deltas, and the snapshot's own configuration holds the
    names from before. With a user's snapshot on top, or the VM gone back to another branch, the VM's disks stay.
    """
    what = "reading the disks of VM " + session.title(vm_obj)
    present = _backings(session.ask(what, lambda: vm_obj.config, True))
    info = session.ask(what, lambda: vm_obj.snapshot, True)
    current = info.currentSnapshot if info is not None else None
    if current is None or current._moId != snapshot.moid:
        return present
    before = _backings(session.ask(what, lambda: current.config, True))
    return {key: before.get(key, name) for key, name in present.items()}


def _backings(config: Any) -> Dict[int, str]:
    disks = [each for each in config.hardware.device if isinstance(each, vim.vm.device.VirtualDisk)]
    return {disk.key: disk.backing.fileName for disk in disks if hasattr(disk.backing, "fileName")}


def _not_removed(title: str, backup_id: str, problem: str) -> VmbackupError:
    return VmbackupError(
        "snapshot_not_removed",
        "The snapshot of backup {} was not removed from VM {}: {}".format(backup_id, title, problem),
        "the next backup of this VM by this controller, or playbooks/cleanup.yml, tries again; where they refuse the VM "
        "for consolidation_needed, consolidate its disks in vSphere; until then they grow on the datastore",
    )
