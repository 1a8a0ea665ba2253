# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tree.idx: the whole tree as of one backup, written and read as a stream.

Invariants: whoever read a whole index has verified it; one that is damaged, cut, foreign or of a newer version raises,
and never passes for an empty one. docs/format.md has the byte tables.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from typing import Any, BinaryIO, Dict, Iterator, NamedTuple, Optional

from ..errors import VmbackupError
from .entry import Row
from .records import Record, index_damaged
from .rules import path_key

_MAGIC = b"VMBTREEI"
_VERSION = 1
_HEAD = struct.Struct("<8sII")
_RECORD = struct.Struct("<BB2xIIIIQ6q16s")
_END = struct.Struct("<B7xQQQ")
_IS_RECORD = 1
_IS_END = 0
_CHECKSUM_SIZE = 32
_BUFFER = 1 << 18


class Totals(NamedTuple):
    """What an index holds. entries: all but the root. size: of the regular files, in bytes, each name counted."""

    folders: int
    entries: int
    size: int


class IndexWriter:
    """Write an index; a context manager. What was not finished by `finish` reads as damaged."""

    def __init__(self, path: str, header: Dict[str, Any]) -> None:
        """path: is replaced. header: goes into JSON. Raises tree_write_failed, as every method does."""
        self._path = path
        self._checksum = hashlib.sha256()
        self._folders = self._entries = self._size = 0
        text = json.dumps(header, sort_keys=True).encode("ascii")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self._file: BinaryIO = os.fdopen(fd, "wb", _BUFFER)
        except OSError as error:
            raise write_failed(path, error) from error
        self._write(_HEAD.pack(_MAGIC, _VERSION, len(text)) + text)

    def __enter__(self) -> "IndexWriter":
        return self

    def __exit__(self, *_exception: object) -> None:
        try:
            self._file.close()
        except OSError:
            pass  # `finish` has told, or an error is under way

    def add(self, record: Record) -> None:
        """Append a folder; folders come in the order of path_key."""
        head = _RECORD.pack(
            _IS_RECORD,
            record.flags,
            len(record.path),
            len(record.payload),
            record.entry_count,
            record.names_length,
            record.size,
            *record.own,
            record.digest,
        )
        self._write(head + record.path + record.payload)
        self._folders += 1
        self._entries += record.entry_count
        self._size += record.size

    def finish(self) -> Totals:
        """Write the end and flush it to the disk."""
        totals = Totals(self._folders, self._entries, self._size)
        self._write(_END.pack(_IS_END, *totals))
        self._write(self._checksum.digest())
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise write_failed(self._path, error) from error
        return totals

    def _write(self, block: bytes) -> None:
        self._checksum.update(block)
        try:
            self._file.write(block)
        except OSError as error:
            raise write_failed(self._path, error) from error


class IndexReader:
    """Read an index once, from front to end; a context manager. `totals` is there after the last record."""

    def __init__(self, path: str) -> None:
        """Raises tree_index_unreadable, tree_index_foreign, tree_index_version, tree_index_damaged."""
        self._checksum = hashlib.sha256()
        self.totals: Optional[Totals] = None
        try:
            self._file: BinaryIO = open(path, "rb", _BUFFER)
            self._left = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise _unreadable(path, error) from error
        self._path = path
        try:
            self.header = self._read_header()
        except VmbackupError:
            self._file.close()
            raise

    def __enter__(self) -> "IndexReader":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Record]:
        """Yield the folders in order; raises tree_index_damaged at the latest at the end."""
        folders = entries = size = 0
        before: Optional[bytes] = None
        while True:
            tag = self._take(1)
            if tag[0] == _IS_END:
                break
            if tag[0] != _IS_RECORD:
                raise index_damaged("neither a folder nor its end where one should begin")
            record = self._read_record(tag)
            key = path_key(record.path)
            if before is not None and key <= before:
                raise index_damaged("its folders are out of order")
            before = key
            folders, entries, size = folders + 1, entries + record.entry_count, size + record.size
            yield record
        totals = Totals(*_END.unpack(tag + self._take(_END.size - 1))[1:])
        self._verify()
        if totals != (folders, entries, size):
            raise index_damaged("it holds another number of entries than it says")
        self.totals = totals

    def _read_header(self) -> Dict[str, Any]:
        head = self._take(_HEAD.size) if self._left >= _HEAD.size else b""
        if not head.startswith(_MAGIC):
            raise index_foreign("{} is not a tree index".format(self._path))
        _magic, version, length = _HEAD.unpack(head)
        if version != _VERSION:
            raise VmbackupError(
                "tree_index_version",
                "{} is of format {}, this version reads format {}".format(self._path, version, _VERSION),
                "use a newer version of vmbackup.esx, or make a full backup",
            )
        try:
            header = json.loads(self._take(length).decode("ascii"))
        except ValueError as error:
            raise index_damaged("its header cannot be read") from error
        if not isinstance(header, dict):
            raise index_damaged("its header is none")
        return header

    def _read_record(self, tag: bytes) -> Record:
        head = tag + self._take(_RECORD.size - 1)
        _tag, flags, path_length, length, count, names_length, size, *rest = _RECORD.unpack(head)
        path = self._take(path_length)
        return Record(path, flags, Row(*rest[:6]), count, size, names_length, rest[6], self._take(length))

    def _verify(self) -> None:
        expected = self._checksum.digest()
        if self._take(_CHECKSUM_SIZE) != expected or self._left:
            raise index_damaged("its checksum does not hold")

    def _take(self, length: int) -> bytes:
        if length > self._left:
            raise index_damaged("it ends too early")
        try:
            block = self._file.read(length)
        except OSError as error:
            raise _unreadable(self._path, error) from error
        if len(block) != length:
            raise index_damaged("it ends too early")
        self._left -= length
        self._checksum.update(block)
        return block


def write_failed(path: str, error: OSError) -> VmbackupError:
    """Return the error of a file of the scan that could not be written."""
    return VmbackupError(
        "tree_write_failed",
        "{} could not be written: {}".format(path, error.strerror or error),
        "free space in the guest's state folder: 30 bytes for each file, 100 more for each that changed",
    )


def index_foreign(why: str) -> VmbackupError:
    """Return the error of an index that belongs to something else."""
    return VmbackupError("tree_index_foreign", why, "give the index of this machine, or make a full backup")


def _unreadable(path: str, error: OSError) -> VmbackupError:
    return VmbackupError(
        "tree_index_unreadable",
        "the tree index {} cannot be read: {}".format(path, error.strerror or error),
        "use the index of another backup of this machine, or make a full backup",
    )
