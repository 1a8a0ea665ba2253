# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backups belong together: the VM's UUID and the chain.

Invariant: a folder takes over another machine only when told (adopt); an incremental stands on a backup that is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Dict, Mapping, Optional, Sequence

from ..errors import VmbackupError
from .checksums import read_text
from .layout import VmFolder
from .manifest import Manifest, VmIdentity, from_json
from .names import MANIFEST, parse_backup_id
from .records import ARRIVED, read_records


@dataclass(frozen=True)
class Tip:
    """The newest backup of a VM, by arrival. arrived: aware; the id's time where no arrival is recorded."""

    id: str
    arrived: datetime


@dataclass(frozen=True)
class Standing:
    """Where a VM's chain stands, for who wants to add to it.

    tip: id of the newest backup by arrival. base: the full that it stands on, or is. vm: whose it is, by its manifest.
    known: those of the ids asked for that are committed, each with the full that it stands on, or is.
    """

    tip: str
    base: str
    vm: VmIdentity
    known: Mapping[str, str] = field(default_factory=dict)


def find_standing(folder: VmFolder, ids: Sequence[str]) -> Optional[Standing]:
    """Return where a VM's chain stands; None when it has no backup. Raises backup_id_invalid, manifest_invalid."""
    tip = find_tip(folder)
    if tip is None:
        return None
    known = {each: _base(folder, each) for each in ids if folder.committed(each).is_dir()}
    return Standing(tip.id, _base(folder, tip.id), committed_manifest(folder, tip.id).vm, known)


def find_tip(folder: VmFolder) -> Optional[Tip]:
    """Return the newest committed backup; None when there is none."""
    arrivals: Dict[str, datetime] = {
        record.backup_id: record.arrived for record in read_records(folder.records, ARRIVED) if record.backup_id
    }
    tips = [Tip(id, arrivals.get(id, parse_backup_id(id).time)) for id in folder.committed_ids()]
    return max(tips, key=lambda tip: (tip.arrived.astimezone(timezone.utc), tip.id), default=None)


def committed_manifest(folder: VmFolder, backup_id: str) -> Manifest:
    """Return the manifest of a committed backup; raises backup_incomplete, manifest_invalid."""
    return from_json(read_text(folder.committed(backup_id) / MANIFEST))


def _base(folder: VmFolder, backup_id: str) -> str:
    return committed_manifest(folder, backup_id).base or backup_id


def check_lineage(folder: VmFolder, manifest: Manifest, adopt: bool) -> None:
    """Raise unless this backup may join the folder: backup_of_another_vm, vm_uuid_differs, parent_missing."""
    if manifest.vm.name != folder.vm:
        raise VmbackupError(
            "backup_of_another_vm",
            "The manifest of {} names the VM {}, not {}.".format(manifest.id, manifest.vm.name, folder.vm),
            "Send it under the name that its manifest holds.",
        )
    if manifest.kind == "incremental":
        _check_parent(folder, manifest)
        return
    tip = find_tip(folder)
    if tip is not None and not adopt:
        _check_uuid(manifest, committed_manifest(folder, tip.id))


def _check_parent(folder: VmFolder, manifest: Manifest) -> None:
    for role, backup_id in (("parent", manifest.parent), ("base", manifest.base)):
        if backup_id is None or not folder.committed(backup_id).is_dir():
            raise VmbackupError(
                "parent_missing",
                "The {} {} of {} is not in the store.".format(role, backup_id, manifest.id),
                "Make a full backup; it starts a new chain.",
            )
    parent = committed_manifest(folder, str(manifest.parent))
    own_base = parent.id if parent.kind == "full" else parent.base
    if manifest.base != own_base:
        raise VmbackupError(
            "parent_missing",
            "{} names the base {}, but its parent stands on {}.".format(manifest.id, manifest.base, own_base),
            "Make a full backup; it starts a new chain.",
        )
    if manifest.vm.instance_uuid:  # a guest may not know it
        _check_uuid(manifest, parent)


def _check_uuid(manifest: Manifest, other: Manifest) -> None:
    if manifest.vm.instance_uuid.lower() != other.vm.instance_uuid.lower():
        raise VmbackupError(
            "vm_uuid_differs",
            "The folder of {} holds backups of the VM with instance UUID {}; this one is of {}.".format(
                manifest.vm.name, other.vm.instance_uuid, manifest.vm.instance_uuid
            ),
            "Rename one of the two VMs in the inventory, or set adopt (vmbackup_adopt) if this VM replaced the old one.",
        )
