# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files of a VM stand still, and under which names they are archived.

Invariant: disks come from the configuration of our snapshot (of the VM, when it is powered off) and layoutEx, never
from a listing or a name's pattern; every file that is left is named with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, Iterable, Iterator, List, Optional, Protocol, Tuple

from ..core.errors import VmbackupError
from ..core.vm.facts import DiskFacts, FileFacts
from ..core.vm.vmx import ArchivedDisk, parse_vmx, rewrite_for_archive
from .archive_names import ArchiveNames
from .devices import disks_of
from .facts import files_of, require_config
from .properties import retrieve
from .pyvmomi import vim
from .session import Session

_PACKED = ("config", "extendedConfig", "nvram")
_LEFT = {
    "swap": "swap of a running VM",
    "uwswap": "swap of a running VM",
    "suspend": "memory of a suspended VM",
    "suspendMemory": "memory of a suspended VM",
    "snapshotList": "snapshots are recorded, not restored",
    "snapshotManifestList": "snapshots are recorded, not restored",
    "snapshotData": "snapshots are recorded, not restored",
    "snapshotMemory": "snapshots are recorded, not restored",
    "log": "logs are packed only with include_logs",
    "diskDescriptor": "not a link of a frozen disk: the live delta, another snapshot's, or change tracking",
    "diskExtent": "not a link of a frozen disk: the live delta, another snapshot's, or change tracking",
}
_NOT_KNOWN = "a kind of file that is not known to be needed for a restore"

LeftOutFile = Tuple[str, str, str]


@dataclass(frozen=True)
class FrozenLink:
    """A link of a disk's chain. descriptor, extent: `[datastore] folder/name`.

    layoutEx tells no length: its sizes are the space that files take (vim.vm.StorageInfo.UsageOnDatastore).
    """

    descriptor: str
    extent: str


@dataclass(frozen=True)
class FrozenDisk:
    """A disk that stands still. links: the base first. capacity: bytes. adapter: as a descriptor names it."""

    label: str
    key: int
    node: str
    adapter: str
    capacity: int
    uuid: str
    thin: bool
    links: Tuple[FrozenLink, ...]
    descriptor_name: str
    flat_name: str


@dataclass(frozen=True)
class FrozenFile:
    """A small file. path: `[datastore] folder/name`. name: in the archive. role: config, extendedConfig, nvram, log."""

    path: str
    name: str
    role: str
    size: int


@dataclass(frozen=True)
class FrozenVm:
    """All that stands still of a VM. left_out: (what, kind, reason). left_nodes: of disks that are not archived."""

    disks: Tuple[FrozenDisk, ...]
    files: Tuple[FrozenFile, ...]
    left_out: Tuple[LeftOutFile, ...]
    vmx_path: str
    left_nodes: Tuple[str, ...]


def frozen_vm(
    session: Session,
    vm_obj: Any,
    snapshot_moid: Optional[str],
    *,
    exclude_disks: Iterable[str] = (),
    include_logs: bool = False,
) -> FrozenVm:
    """Tell what stands still under a snapshot, or of a VM that is powered off.

    exclude_disks: labels of disks to leave. Raises vm_not_still, transport_unsupported, frozen_unknown,
    vm_inaccessible, and the errors of Session.ask.
    """
    title = session.title(vm_obj)
    wanted: Dict[Any, Tuple[str, ...]] = {vm_obj: ("config", "runtime", "layoutEx")}
    if snapshot_moid is not None:
        wanted[vim.vm.Snapshot(snapshot_moid, session.si._stub)] = ("config",)
    seen = retrieve(session, "reading the files of VM " + title, wanted)
    require_config(seen[0], title)
    now, layout = seen[0]["config"], seen[0]["layoutEx"]
    config = seen[1]["config"] if snapshot_moid is not None else now
    if config is None or layout is None:
        raise _unknown("VM " + title, "vSphere does not list its files")
    if snapshot_moid is None and str(seen[0]["runtime"].powerState) != "poweredOff":
        raise VmbackupError(
            "vm_not_still",
            "VM {} is not powered off and has no snapshot of this backup.".format(title),
            "Run vm_snapshot with the same backup_id first.",
        )
    chains = _chains(layout, snapshot_moid)
    files = {each.key: each for each in files_of(layout)}
    left = _left_disks(disks_of(config), disks_of(now), frozenset(exclude_disks), snapshot_moid is not None)
    names = ArchiveNames()
    packed = tuple(_small_files(files.values(), include_logs, names))
    disks = tuple(_frozen_disk(disk, chains, files, names) for disk in disks_of(config) if disk.node not in left)
    return FrozenVm(
        disks,
        packed,
        tuple(item for _node, item in sorted(left.items())) + tuple(_rest(files.values(), packed, disks)),
        str(now.files.vmPathName),
        tuple(sorted(left)),
    )


def present_disks(session: Session, vm_obj: Any, exclude_disks: Iterable[str] = ()) -> Tuple[FrozenDisk, ...]:
    """Return the disks as a snapshot would freeze them now; of a running VM, each chain's last link is written to.

    Raises transport_unsupported, frozen_unknown, vm_inaccessible, and the errors of Session.ask.
    """
    title = session.title(vm_obj)
    (seen,) = retrieve(session, "reading the files of VM " + title, {vm_obj: ("config", "runtime", "layoutEx")})
    require_config(seen, title)
    if seen["layoutEx"] is None:
        raise _unknown("VM " + title, "vSphere does not list its files")
    disks = disks_of(seen["config"])
    running = str(seen["runtime"].powerState) != "poweredOff"
    left = _left_disks(disks, disks, frozenset(exclude_disks), running)
    files = {each.key: each for each in files_of(seen["layoutEx"])}
    chains, names = _chains(seen["layoutEx"], None), ArchiveNames()
    return tuple(_frozen_disk(disk, chains, files, names) for disk in disks if disk.node not in left)


class SmallFileReader(Protocol):
    """Whatever reads a VM's small files."""

    def read_small(self, path: str) -> bytes:
        """Return the whole of `[datastore] folder/name`."""


def archived_vmx(reader: SmallFileReader, frozen: FrozenVm) -> bytes:
    """Return the .vmx that names the archive's disks and no snapshot; raises vmx_disk_missing, vmx_disk_unknown."""
    disks = [ArchivedDisk(disk.node, disk.descriptor_name) for disk in frozen.disks]
    vmx, _dropped = rewrite_for_archive(parse_vmx(reader.read_small(frozen.vmx_path)), disks, frozen.left_nodes)
    return vmx.render()


def _left_disks(
    frozen: Tuple[DiskFacts, ...], now: Tuple[DiskFacts, ...], exclude: FrozenSet[str], running: bool
) -> Dict[str, LeftOutFile]:
    left: Dict[str, LeftOutFile] = {}
    for disk in frozen:
        if disk.label in exclude:
            left[disk.node] = (disk.label, "disk", "left out by exclude_disks")
        elif running and disk.independent:
            left[disk.node] = (disk.label, "disk", "independent: no snapshot holds it")
    known = {disk.node for disk in frozen}
    for disk in now:
        if disk.node not in known:
            left[disk.node] = (disk.label, "disk", "added after the snapshot")
    return left


def _chains(layout: Any, snapshot_moid: Optional[str]) -> Dict[int, List[List[int]]]:
    """Return, by disk key, the file keys of each link, the base first."""
    disks = layout.disk
    if snapshot_moid is not None:
        own = [each for each in layout.snapshot if each.key._moId == snapshot_moid]
        disks = own[0].disk if own else ()
    return {int(each.key): [[int(key) for key in unit.fileKey] for unit in each.chain] for each in disks}


def _frozen_disk(
    disk: DiskFacts, chains: Dict[int, List[List[int]]], files: Dict[int, FileFacts], names: ArchiveNames
) -> FrozenDisk:
    if disk.backing.startswith("rdm"):
        raise _unsupported(disk, disk.path, "is mapped from a raw device, whose content is no file of a datastore")
    if disk.key not in chains:
        raise _unknown("disk '{}'".format(disk.label), "layoutEx has no chain for it")
    links = tuple(_link(disk, [files[key] for key in unit if key in files]) for unit in chains[disk.key])
    if tuple(link.descriptor for link in links) != disk.chain:
        raise _unknown(
            "disk '{}'".format(disk.label),
            "its backing chain and layoutEx differ: {} and {}".format(
                ", ".join(disk.chain), ", ".join(link.descriptor for link in links)
            ),
        )
    descriptor, flat = names.disk(links[0].descriptor)
    return FrozenDisk(
        disk.label, disk.key, disk.node, _adapter(disk), disk.capacity, disk.uuid, disk.thin, links, descriptor, flat
    )


def _link(disk: DiskFacts, files: List[FileFacts]) -> FrozenLink:
    descriptors = [each for each in files if each.kind == "diskDescriptor"]
    extents = [each for each in files if each.kind == "diskExtent"]
    if len(descriptors) != 1 or len(extents) != 1:
        found = "has {} descriptors and {} extents, where one of each can be read (vSAN and vVol have no extent)"
        paths = ", ".join(each.path for each in files) or disk.path
        raise _unsupported(disk, paths, found.format(len(descriptors), len(extents)))
    return FrozenLink(descriptors[0].path, extents[0].path)


def _adapter(disk: DiskFacts) -> str:
    if disk.controller == "ide":
        return "ide"
    return "buslogic" if disk.adapter == "VirtualBusLogicController" else "lsilogic"


def _small_files(files: Iterable[FileFacts], include_logs: bool, names: ArchiveNames) -> Iterator[FrozenFile]:
    for each in files:
        if each.kind in _PACKED or (each.kind == "log" and include_logs):
            yield FrozenFile(each.path, names.file(each.path), each.kind, each.size)


def _rest(
    files: Iterable[FileFacts], packed: Tuple[FrozenFile, ...], disks: Tuple[FrozenDisk, ...]
) -> Iterator[LeftOutFile]:
    taken = {each.path for each in packed}
    taken.update(path for disk in disks for link in disk.links for path in (link.descriptor, link.extent))
    for each in files:
        if each.path not in taken:
            yield each.path, each.kind, _LEFT.get(each.kind, _NOT_KNOWN)


def _unsupported(disk: DiskFacts, link: str, cause: str) -> VmbackupError:
    return VmbackupError(
        "transport_unsupported",
        "The datastore transport cannot read disk '{}': its link {} {}.".format(disk.label, link, cause),
        "Move the disk to a VMFS or NFS datastore, set transport to another way, or leave the disk out by "
        "exclude_disks: ['{}'].".format(disk.label),
    )


def _unknown(what: str, cause: str) -> VmbackupError:
    return VmbackupError(
        "frozen_unknown",
        "It is not known which files of {} stand still: {}.".format(what, cause),
        "Run the backup again; if that does not help, refresh the VM's storage information in vSphere.",
    )
