# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a VM before it is backed up.

Invariant: plain values only; what vSphere said and we do not know is kept under its own name, never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

CONTROLLERS = frozenset(("scsi", "sata", "nvme", "ide"))


@dataclass(frozen=True)
class DiskFacts:
    """A virtual disk.

    node: where it is plugged in, such as `scsi0:1`. controller: scsi, sata, nvme, ide, or vSphere's name of another.
    adapter: vSphere's class of the controller. bus_sharing: of its controller. capacity: bytes; 0 when not told.
    path: `[datastore] folder/name.vmdk`. mode, sharing: as vSphere names them. backing: flat, sesparse, rdm_physical,
    rdm_virtual, or vSphere's name of another. chain: descriptors, the base first.
    """

    label: str
    key: int
    node: str
    controller: str
    adapter: str
    bus_sharing: str
    capacity: int
    path: str
    mode: str
    sharing: str
    backing: str
    chain: Tuple[str, ...]
    uuid: str
    thin: bool
    encrypted: bool

    @property
    def datastore(self) -> str:
        """The datastore's name."""
        return split_path(self.path)[0]

    @property
    def independent(self) -> bool:
        """Whether snapshots pass it by."""
        return self.mode.startswith("independent")


@dataclass(frozen=True)
class SnapshotFacts:
    """A snapshot in the VM's tree. created: ISO 8601. ours: it carries a lease of this collection."""

    name: str
    id: int
    created: str
    ours: bool


@dataclass(frozen=True)
class DatastoreFacts:
    """A datastore. free, capacity: bytes."""

    name: str
    kind: str
    free: int
    capacity: int
    accessible: bool


@dataclass(frozen=True)
class FileFacts:
    """A file of the VM, as layoutEx lists it. size: bytes."""

    key: int
    path: str
    kind: str
    size: int


@dataclass(frozen=True)
class VmFacts:
    """A VM. power_state: powered_on, powered_off, suspended. boot_time: ISO 8601. encryption_key: its id, or empty."""

    name: str
    instance_uuid: str
    bios_uuid: str
    power_state: str
    template: bool
    guest_os: str
    esx_host: str
    esx_version: str
    esx_build: str
    boot_time: Optional[str]
    change_version: str
    vmx_path: str
    disks: Tuple[DiskFacts, ...]
    passthrough: Tuple[str, ...]
    shared_controllers: Tuple[str, ...]
    vtpm: bool
    encryption_key: str
    fault_tolerant: bool
    snapshots: Tuple[SnapshotFacts, ...]
    consolidation_needed: bool
    datastores: Tuple[DatastoreFacts, ...]
    files: Tuple[FileFacts, ...]


def split_path(path: str) -> Tuple[str, str]:
    """Split `[datastore] folder/name` into datastore and path; a text of another form has no datastore."""
    if not path.startswith("[") or "]" not in path:
        return "", path
    datastore, rest = path[1:].split("]", 1)
    return datastore, rest.lstrip(" ")
