# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From changes to tar entries: what is there now is packed as it is, whatever happens to it meanwhile.

Invariants: every change is packed, or is in `missing` with its reason; the last entry of a name is never filled up or cut;
what changed while it was read is in `unstable`. Memory grows with hard links and with what is missing alone.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from dataclasses import dataclass
from typing import Dict, Iterable, List, NamedTuple, Optional, Protocol, Tuple, Union

from ..archive.pax_headers import (
    BLOCK_DEVICE,
    CHARACTER,
    FIFO,
    FOLDER,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    PaxEntry,
    pax_header,
)
from ..archive.sources import Source
from ..archive.tar_headers import INDEX_NAME
from ..archive.writer import ArchiveWriter
from ..errors import VmbackupError
from .attributes import attribute_records
from .folders import Folders, FolderUnreachable
from .live_content import SMALL, LiveSource, copy_to, data_ranges, open_file, read_small, sparse_map

VANISHED, UNREADABLE, SOCKET, RESERVED = "vanished", "unreadable", "socket", "reserved"
_OWN_INDEX = INDEX_NAME.encode("ascii")
MOST_READ_AGAIN = 256 << 20
_TRIES = 3
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
_DEVICES = {stat.S_IFCHR: CHARACTER, stat.S_IFBLK: BLOCK_DEVICE, stat.S_IFIFO: FIFO}
_AT_ONCE = "it changed while it was read, so it may mix two states"


class ToPack(Protocol):
    """What packing asks of a change: its kind (deleted ones are passed over), its path below the root, whether a folder."""

    @property
    def kind(self) -> str: ...

    @property
    def path(self) -> bytes: ...

    @property
    def is_folder(self) -> bool: ...


class Note(NamedTuple):
    """A path, and what is to be said of it. reason: for people."""

    path: bytes
    kind: str
    reason: str


@dataclass(frozen=True)
class PackedTree:
    """What was packed. files: paths of any kind. bytes_read: content. missing: not in the archive, a folder for all below it.

    unstable: in the archive, but changed while they were read.
    """

    files: int
    bytes_read: int
    missing: Tuple[Note, ...]
    unstable: Tuple[Note, ...]


def pack_changes(
    changes: Iterable[ToPack],
    writer: ArchiveWriter,
    *,
    scratch: str,
    root: str = "/",
) -> PackedTree:
    """Pack what changed, in the order of scan_place. A folder in which something is packed is packed as well: writing there
    would change its time at a restore.

    scratch: folder for a private copy of a large file that shrinks while it is read. root: absolute, what paths are
    below of. Raises source_unreadable, scratch_failed and what the writer raises.
    """
    with Folders() as folders:
        packer = _Packer(folders, os.fsencode(root).strip(b"/"), writer, scratch)
        for change in changes:
            if change.kind != "deleted":
                packer.add(change.path, change.is_folder)
        return PackedTree(packer.files, packer.bytes_read, tuple(packer.missing), tuple(packer.unstable))


class _Packed(NamedTuple):
    """A name of a file, and what the file was when it was packed under it. mtime: ns."""

    name: bytes
    size: int
    mtime: int


class _Packer:
    def __init__(self, folders: Folders, root: bytes, writer: ArchiveWriter, scratch: str) -> None:
        self._folders, self._root, self._writer, self._scratch = folders, root, writer, scratch
        self._links: Dict[Tuple[int, int], _Packed] = {}
        self._folder: Optional[bytes] = None  # the last one packed
        self.files = self.bytes_read = 0
        self.missing: List[Note] = []
        self.unstable: List[Note] = []

    def add(self, path: bytes, is_folder: bool) -> None:
        """Pack one path, or note why not."""
        folder, _slash, name = path.rpartition(b"/")
        if path == _OWN_INDEX:
            self._miss(path, RESERVED, "archives keep their own index under this name")
            return
        if is_folder:
            self._folder = path
        try:
            parent = self._open(folder)
            status = os.stat(name or b".", dir_fd=parent, follow_symlinks=False)
            if stat.S_ISSOCK(status.st_mode):
                self._miss(path, SOCKET, "a socket has no content")
                return
            if not is_folder and folder != self._folder:
                self.add(folder, True)
                parent = self._open(folder)
            self._add(path, name or b".", parent, status)
        except FolderUnreachable as error:
            lost = error.path[len(self._root) :].lstrip(b"/")
            if not self.missing or self.missing[-1].path != lost:
                self._lose(lost, error)
        except OSError as error:
            self._lose(path, error)

    def _open(self, folder: bytes) -> int:
        """Open a folder below the root; its descriptor is good until the next one."""
        return self._folders.open(b"/".join(part for part in (self._root, folder) if part))

    def _add(self, path: bytes, name: bytes, parent: int, status: os.stat_result) -> None:
        first = self._links.get((status.st_dev, status.st_ino)) if status.st_nlink > 1 else None
        if first is not None and first.mtime == status.st_mtime_ns and first.size == status.st_size:
            self._write(path, status, HARD_LINK, link=first.name)
        elif stat.S_ISREG(status.st_mode):
            self._add_regular(path, name, parent)
        elif stat.S_ISDIR(status.st_mode):
            fd = self._open(path)
            self._write(path, os.fstat(fd), FOLDER, records=attribute_records(fd))
        else:
            self._add_special(path, name, parent, status)

    def _add_special(self, path: bytes, name: bytes, parent: int, status: os.stat_result) -> None:
        records = attribute_records(b"/proc/self/fd/%d/%s" % (parent, name))  # opening it could do something
        if stat.S_ISLNK(status.st_mode):
            self._write(path, status, SYMLINK, link=os.readlink(name, dir_fd=parent), records=records)
            return
        kind = _DEVICES.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            self._miss(path, UNREADABLE, "its type is not known")
            return
        device = (0, 0) if kind == FIFO else (os.major(status.st_rdev), os.minor(status.st_rdev))
        self._write(path, status, kind, device=device, records=records)

    def _add_regular(self, path: bytes, name: bytes, parent: int) -> None:
        fd = open_file(name, parent)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):  # it was exchanged just now
                raise FileNotFoundError("it became something else while it was packed")
            records = attribute_records(fd)
            if status.st_size <= SMALL:
                self._add_small(path, fd, status, records)
            else:
                self._add_large(path, fd, status, records)
        finally:
            os.close(fd)

    def _add_small(self, path: bytes, fd: int, status: os.stat_result, records: Dict[bytes, bytes]) -> None:
        stable = False
        for _try in range(_TRIES):
            data = read_small(fd, status.st_size)
            before, status = status, os.fstat(fd)
            stable = _same(before, status) and len(data) == status.st_size
            if stable:
                break
            if status.st_size > SMALL:
                self._add_large(path, fd, status, records)
                return
        if not stable:
            self.unstable.append(Note(path, "unstable", _AT_ONCE))
        self._write(path, status, REGULAR, content=data, records=records)

    def _add_large(self, path: bytes, fd: int, status: os.stat_result, records: Dict[bytes, bytes]) -> None:
        """Pack a file as a stream; a second entry of the same name corrects what the first one could not hold."""
        for again in (True, False):
            short = self._stream(path, fd, status, records)
            before, status = status, os.fstat(fd)
            if short:
                self._add_copy(path, fd, status, records)
                return
            if _same(before, status):
                return
            if not again or status.st_size > MOST_READ_AGAIN:
                break
        self.unstable.append(Note(path, "unstable", _AT_ONCE))

    def _stream(self, path: bytes, fd: int, status: os.stat_result, records: Dict[bytes, bytes]) -> bool:
        """Pack a file's ranges of data; return whether it was shorter than it had said."""
        size = status.st_size
        ranges = data_ranges(fd, size)
        head = stands_as = b""
        if ranges != [(0, size)] and size:
            head = sparse_map(ranges, size)
            sparse = {b"major": b"1", b"minor": b"0", b"name": path, b"realsize": b"%d" % size}
            records = {**records, **{b"GNU.sparse." + key: value for key, value in sparse.items()}}
            stands_as = b"GNUSparseFile.0/" + path  # where a reader that knows no maps must not take it for the file
        source = LiveSource(fd, _name(path), ranges, head)
        self._write(path, status, REGULAR, content=source, records=records, stands_as=stands_as)
        return source.short

    def _add_copy(self, path: bytes, fd: int, status: os.stat_result, records: Dict[bytes, bytes]) -> None:
        self.unstable.append(Note(path, "unstable", "it shrank while it was read; what was left of it is saved"))
        try:
            with tempfile.TemporaryFile(dir=self._scratch) as copy:
                size = copy_to(fd, copy.fileno(), _name(path))
                source = LiveSource(copy.fileno(), _name(path), [(0, size)] if size else [])
                self._write(path, status, REGULAR, content=source, records=records)
        except OSError as error:
            raise VmbackupError(
                "scratch_failed",
                "a copy of {}, which shrank while it was read, could not be made: {}".format(
                    _name(path), error.strerror or error
                ),
                "free space where scratch files go: the guest's state_dir (vmbackup_guest_state_dir)",
            ) from error

    def _write(
        self,
        path: bytes,
        status: os.stat_result,
        kind: bytes,
        *,
        content: Union[bytes, Source] = b"",
        link: bytes = b"",
        device: Tuple[int, int] = (0, 0),
        records: Optional[Dict[bytes, bytes]] = None,
        stands_as: bytes = b"",
    ) -> None:
        size = len(content) if isinstance(content, bytes) else content.size
        name = path or b"."
        entry = PaxEntry(
            stands_as or name,
            kind,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            size,
            link,
            device,
            records or {},
        )
        self._writer.add_entry(_name(name), pax_header(entry), content)
        self.files += 1
        self.bytes_read += size
        if status.st_nlink > 1 and kind not in (FOLDER, HARD_LINK):
            self._note_name(_Packed(name, status.st_size, status.st_mtime_ns), (status.st_dev, status.st_ino))

    def _note_name(self, packed: _Packed, key: Tuple[int, int]) -> None:
        """Remember under which name a file with several was packed, and what it was then."""
        earlier = self._links.get(key)
        if earlier is not None and earlier.name != packed.name:
            self.unstable.append(Note(packed.name, "unstable", "it changed after another name of it was packed"))
        self._links[key] = packed

    def _lose(self, path: bytes, error: OSError) -> None:
        gone = error.errno in _GONE or isinstance(error, FileNotFoundError)
        self._miss(
            path, VANISHED if gone else UNREADABLE, "gone since the scan" if gone else error.strerror or str(error)
        )

    def _miss(self, path: bytes, kind: str, reason: str) -> None:
        self.missing.append(Note(path, kind, reason))


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_size, one.st_mtime_ns, one.st_ctime_ns) == (other.st_size, other.st_mtime_ns, other.st_ctime_ns)


def _name(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
