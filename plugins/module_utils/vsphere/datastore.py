# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The datastore transport: frozen disks read over HTTPS `/folder`.

Invariant: a disk is read in full, from links whose descriptors say what layoutEx says, or an error is raised.
"""

from __future__ import annotations

import posixpath
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Iterable, Iterator, Optional, Set, Type

from ..core.errors import VmbackupError
from ..core.vm.facts import split_path
from ..core.vm.vmdk import LARGEST_DESCRIPTOR, SECTOR, Descriptor, parse_descriptor, render_descriptor
from ..core.vm.vmfs_sparse import MergedDisk
from .datastore_file import DatastoreFile
from .delta_file import DeltaFile
from .folder_server import FolderServer
from .frozen import FrozenDisk, FrozenLink, FrozenVm, present_disks
from .session import Session

_LARGEST_SMALL_FILE = 256 << 20
_BLOCKS = 8  # of 1 MiB, shared by all deltas of a disk; one each, where there are more
_BASE = ("vmfs", "VMFS")
_DELTA = ("vmfsSparse", "VMFSSPARSE")


class DatastoreReader:
    """Reads files of a VM's datastores."""

    def __init__(self, session: Session, vm_obj: Any, *, timeout: float = 60.0) -> None:
        """timeout: seconds without a byte, after which a download is taken up again."""
        self._server = FolderServer(session, vm_obj, timeout)
        self._checked: Set[FrozenDisk] = set()

    def __enter__(self) -> DatastoreReader:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._server.close()

    def open(self, path: str, size: Optional[int] = None, *, streaming: bool = False) -> DatastoreFile:
        """Open `[datastore] folder/name`.

        size: bytes; None asks the server, for layoutEx tells the space that a file takes, which is less where it is thin.
        streaming: reads follow one another.
        """
        return DatastoreFile(self._server, path, size, streaming)

    def open_delta(self, path: str, scratch: str, blocks: int) -> DeltaFile:
        """Open a delta's extent for random reads.

        scratch: folder for a copy. blocks: MiB to keep in memory.
        """
        return DeltaFile(lambda size, streaming: self.open(path, size, streaming=streaming), scratch, blocks)

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

    def check_links(self, disk: FrozenDisk, *, live: bool = False) -> None:
        """Read the descriptors of a disk's links, once, and compare them with what vSphere lists.

        live: the last link is being written to; a host that does not give its descriptor then is believed without.
        Raises transport_unsupported, descriptor_invalid, chain_broken, and the download errors.
        """
        if disk not in self._checked:
            _check_links(self, disk, live)
            self._checked.add(disk)

    def probe(self, frozen: FrozenVm) -> None:
        """Check every link and read one sector of each; raises what check_links does."""
        for disk in frozen.disks:
            self.check_links(disk)
            for link in disk.links:
                with self.open(link.extent) as extent:
                    extent.read_into(0, memoryview(bytearray(min(SECTOR, extent.size))))


def require_readable(session: Session, vm_obj: Any, exclude_disks: Iterable[str] = ()) -> None:
    """Refuse, before a snapshot is taken, a VM whose chains this transport cannot read.

    Raises what present_disks and check_links do.
    """
    with DatastoreReader(session, vm_obj) as reader:
        for disk in present_disks(session, vm_obj, exclude_disks):
            reader.check_links(disk, live=True)


@contextmanager
def disk_source(reader: DatastoreReader, disk: FrozenDisk, scratch: str) -> Iterator[MergedDisk]:
    """Open a disk's content, all links merged, as a Source.

    scratch: folder for copies of deltas. Raises what check_links does, flat_size, delta_invalid, scratch_full.
    """
    reader.check_links(disk)
    base, *links = disk.links
    blocks = max(1, _BLOCKS // max(1, len(links)))
    with ExitStack() as opened:
        flat = opened.enter_context(reader.open(base.extent, disk.capacity, streaming=True))
        deltas = [opened.enter_context(reader.open_delta(link.extent, scratch, blocks)) for link in links]
        yield MergedDisk(flat, deltas, disk.capacity)


def descriptor_of(disk: FrozenDisk) -> bytes:
    """Return the archive's descriptor of a disk."""
    return render_descriptor(disk.flat_name, disk.capacity, adapter=disk.adapter, uuid=disk.uuid, thin=disk.thin)


def _check_links(reader: DatastoreReader, disk: FrozenDisk, live: bool) -> None:
    parent: Optional[Descriptor] = None
    for link in disk.links:
        try:
            data = reader.read_small(link.descriptor, LARGEST_DESCRIPTOR)
        except VmbackupError as error:
            if live and link is disk.links[-1] and error.code == "download_refused":
                return
            raise
        descriptor = parse_descriptor(data, link.descriptor)
        _check_kind(disk, link, descriptor, _BASE if parent is None else _DELTA)
        _check_place(disk, link, descriptor, parent)
        if parent is not None:
            _check_parent(disk, link, descriptor, parent)
        parent = descriptor


def _check_kind(disk: FrozenDisk, link: FrozenLink, found: Descriptor, wanted: "tuple[str, str]") -> None:
    kinds = [extent.kind for extent in found.extents]
    if (found.create_type, kinds) != (wanted[0], [wanted[1]]):
        raise VmbackupError(
            "transport_unsupported",
            "Disk '{}' has the link {} of type {} with extents {}; the datastore transport reads one flat extent and "
            "vmfsSparse deltas.".format(disk.label, link.descriptor, found.create_type, ", ".join(kinds)),
            "Delete the VM's own snapshots if the link is one's, set transport to another way, or leave the disk out by "
            "exclude_disks: ['{}'].".format(disk.label),
        )


def _check_parent(disk: FrozenDisk, link: FrozenLink, found: Descriptor, parent: Descriptor) -> None:
    """Raise when a parent was written to under its child: ESX would not open the chain either."""
    if found.parent_cid != parent.cid:
        raise VmbackupError(
            "chain_broken",
            "Disk '{}': {} stands on a parent with the content id {}, but the parent has {}.".format(
                disk.label, link.descriptor, found.parent_cid, parent.cid
            ),
            "Repair the chain in vSphere, or leave the disk out by exclude_disks.",
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
