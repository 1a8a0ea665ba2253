# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The datastore transport: frozen disks read over HTTPS `/folder`.

Invariant: a disk is read in full, from links whose descriptors say what layoutEx says, or an error is raised.
"""

from __future__ import annotations

import posixpath
from contextlib import contextmanager
from typing import Any, Iterator, List, Optional

from ..core.errors import VmbackupError
from ..core.vm.facts import split_path
from ..core.vm.vmdk import LARGEST_DESCRIPTOR, Descriptor, parse_descriptor, render_descriptor
from ..core.vm.vmfs_sparse import MergedDisk
from .datastore_file import DatastoreFile, FolderServer
from .frozen import FrozenDisk, FrozenLink, FrozenVm
from .session import Session

_LARGEST_SMALL_FILE = 256 << 20
_BASE = ("vmfs", "VMFS")
_DELTA = ("vmfsSparse", "VMFSSPARSE")


class DatastoreReader:
    """Reads files of a VM's datastores."""

    def __init__(self, session: Session, vm_obj: Any, *, timeout: float = 60.0) -> None:
        """timeout: seconds without a byte, after which a download is taken up again."""
        self._server = FolderServer(session, vm_obj, timeout)

    def open(self, path: str, size: Optional[int] = None, *, streaming: bool = False) -> DatastoreFile:
        """Open `[datastore] folder/name`.

        size: bytes that layoutEx tells; None asks the server. streaming: reads follow one another.
        """
        return DatastoreFile(self._server, path, size, streaming)

    def read_small(self, path: str, largest: int = _LARGEST_SMALL_FILE) -> bytes:
        """Return a small file whole; raises download_large, and the errors of DatastoreFile."""
        with DatastoreFile(self._server, path, None, True) as file:
            if file.size > largest:
                raise VmbackupError(
                    "download_large", "{} has {} bytes, at most {} are read".format(path, file.size, largest)
                )
            data = bytearray(file.size)
            file.read_into(0, memoryview(data))
        return bytes(data)

    def probe(self, frozen: FrozenVm) -> Optional[str]:
        """Read one sector of each link; return why this transport cannot read the VM, or None."""
        try:
            for disk in frozen.disks:
                _check_links(self, disk)
                for link in disk.links:
                    with self.open(link.extent, link.size) as extent:
                        extent.read_into(0, memoryview(bytearray(min(512, link.size))))
        except VmbackupError as error:
            if error.code in ("esx_unreachable", "esx_certificate", "esx_login"):
                raise
            return str(error)
        return None


@contextmanager
def disk_source(reader: DatastoreReader, disk: FrozenDisk) -> Iterator[MergedDisk]:
    """Open a disk's content, all links merged, as a Source.

    Raises transport_unsupported, descriptor_invalid, chain_broken, flat_size, delta_invalid, and the download errors.
    """
    _check_links(reader, disk)
    base, *deltas = disk.links
    opened: List[DatastoreFile] = []
    try:
        opened.append(reader.open(base.extent, base.size, streaming=True))
        opened.extend(reader.open(link.extent, link.size) for link in deltas)
        yield MergedDisk(opened[0], opened[1:], disk.capacity)
    finally:
        for file in opened:
            file.close()


def descriptor_of(disk: FrozenDisk) -> bytes:
    """Return the archive's descriptor of a disk."""
    return render_descriptor(disk.flat_name, disk.capacity, adapter=disk.adapter, uuid=disk.uuid, thin=disk.thin)


def _check_links(reader: DatastoreReader, disk: FrozenDisk) -> None:
    parent: Optional[Descriptor] = None
    for link in disk.links:
        data = reader.read_small(link.descriptor, LARGEST_DESCRIPTOR)
        descriptor = parse_descriptor(data, link.descriptor)
        _check_kind(disk, link, descriptor, _BASE if parent is None else _DELTA)
        _check_place(disk, link, descriptor, parent)
        parent = descriptor


def _check_kind(disk: FrozenDisk, link: FrozenLink, found: Descriptor, wanted: "tuple[str, str]") -> None:
    kinds = [extent.kind for extent in found.extents]
    if (found.create_type, kinds) != (wanted[0], [wanted[1]]):
        raise VmbackupError(
            "transport_unsupported",
            "Disk '{}' has the link {} of type {} with extents {}; the datastore transport reads one flat extent and "
            "vmfsSparse deltas.".format(disk.label, link.descriptor, found.create_type, ", ".join(kinds)),
            "Set transport to one that this ESX host allows, or leave the disk out by exclude_disks.",
        )


def _check_place(disk: FrozenDisk, link: FrozenLink, found: Descriptor, parent: Optional[Descriptor]) -> None:
    extent = found.extents[0]
    same = posixpath.basename(extent.name) == posixpath.basename(split_path(link.extent)[1])
    if (
        same
        and found.capacity == disk.capacity
        and extent.offset == 0
        and (parent is not None) == (found.parent is not None)
    ):
        return
    raise VmbackupError(
        "chain_broken",
        "Disk '{}': {} names the extent {} of {} bytes, vSphere lists {} of a disk of {} bytes.".format(
            disk.label, link.descriptor, extent.name, found.capacity, link.extent, disk.capacity
        ),
        "Check the disk with `vmkfstools -x check` on the ESX host, or leave it out by exclude_disks.",
    )
