# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that a removal of ours left unmerged because its run was cut off in between.

Invariant: they count as ours only when no disk needed consolidation just before that removal, nobody removed or took a
snapshot since, and no packing module of this node is at work on the VM. Else the judgement refuses the VM.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ..core.errors import VmbackupError
from ..core.vm.owner_lock import is_held
from ..core.vm.removal_mark import clear_mark, read_mark, set_mark
from .session import Session
from .snapshot_tree import OurSnapshot, snapshot_ids


def mark_removal(session: Session, vm_obj: Any, lock_dir: str, snapshot: OurSnapshot) -> None:
    """Note in lock_dir that a snapshot of ours is about to be removed, unless a disk needs consolidation already."""
    if not needs_consolidation(session, vm_obj):
        others = [moid for moid in snapshot_ids(session, vm_obj) if moid != snapshot.moid]
        set_mark(lock_dir, _instance_uuid(session, vm_obj), snapshot.lease.id, others)


def forget_removal(session: Session, vm_obj: Any, lock_dir: str) -> None:
    """Take the note back: the removal was verified, which a failure here must not hide."""
    with suppress(VmbackupError):
        clear_mark(lock_dir, _instance_uuid(session, vm_obj))


def unmerged_by_us(session: Session, vm_obj: Any, lock_dir: str, instance_uuid: str) -> str:
    """Return the id of the backup whose removal left the VM's disks unmerged, or "" where that is not proven."""
    mark = read_mark(lock_dir, instance_uuid)
    if mark is None or not needs_consolidation(session, vm_obj) or is_held(lock_dir, instance_uuid):
        return ""
    return mark.backup_id if sorted(snapshot_ids(session, vm_obj)) == sorted(mark.others) else ""


def needs_consolidation(session: Session, vm_obj: Any) -> bool:
    """Tell whether vSphere says that a VM's disks need consolidation."""
    what = "reading the disks of VM " + session.title(vm_obj)
    return bool(session.ask(what, lambda: vm_obj.runtime, True).consolidationNeeded)


def _instance_uuid(session: Session, vm_obj: Any) -> str:
    config = session.ask("reading the identity of VM " + session.title(vm_obj), lambda: vm_obj.config, True)
    return str(config.instanceUuid)
