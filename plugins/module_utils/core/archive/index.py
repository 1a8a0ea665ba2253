# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive's index: where each member and each file stands, with their digests.

Invariants: the writer's side lies in files, never in memory; the reader's side is read only after its checksum was.
docs/format.md has the byte tables.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from typing import BinaryIO, Dict, Iterator, List, NamedTuple

from ..errors import VmbackupError
from .codecs import Codec
from .members import CHUNK, FLAG_ZERO, ZERO_RUN

_MAGIC = b"VMBINDEX"
_VERSION = 1
_HEAD = struct.Struct("<8sIIQQQ8sI12x")
_MEMBER = struct.Struct("<QQIII32s")
_FILE = struct.Struct("<QQQ32sH")
_CHECKSUM_SIZE = 32
_BLOCK = 1 << 16


class MemberRecord(NamedTuple):
    """One member: its place in the archive, its place in the tar stream, its content's SHA-256."""

    offset: int
    tar_offset: int
    length: int
    tar_length: int
    flags: int
    digest: bytes


class FileRecord(NamedTuple):
    """One file: its content's place in the tar stream, the member where that begins, its digest of digests."""

    name: str
    tar_offset: int
    size: int
    first_member: int
    digest: bytes


class IndexSpill:
    """Collect an index in two nameless files of `folder` while an archive is packed."""

    def __init__(self, folder: str) -> None:
        """Open the files; raises scratch_failed, as every method does."""
        self.members = 0
        self._file_count = 0
        self._folder = folder
        with self._naming_errors(), ExitStack() as opened:
            self._member_file: BinaryIO = opened.enter_context(tempfile.TemporaryFile(dir=folder))
            self._file_file: BinaryIO = opened.enter_context(tempfile.TemporaryFile(dir=folder))
            self._opened = opened.pop_all()

    def add_member(self, record: MemberRecord) -> None:
        """Append a member, in the archive's order."""
        with self._naming_errors():
            self._member_file.write(pack_record(record))
        self.members += 1

    def add_file(self, record: FileRecord) -> None:
        """Append a file, in the tar's order."""
        name = record.name.encode("utf-8", "surrogateescape")
        with self._naming_errors():
            self._file_file.write(_FILE.pack(*record[1:], len(name)) + name)
        self._file_count += 1

    def size(self) -> int:
        """Return the finished index's size in bytes."""
        return _HEAD.size + self._member_file.tell() + self._file_file.tell() + _CHECKSUM_SIZE

    def blocks(self, codec: Codec) -> Iterator[bytes]:
        """Yield the finished index in order."""
        head = _HEAD.pack(
            _MAGIC,
            _VERSION,
            _MEMBER.size,
            self.members,
            self._file_count,
            self._file_file.tell(),
            codec.name.encode("ascii"),
            codec.level,
        )
        checksum = hashlib.sha256(head)
        yield head
        for spilled in (self._member_file, self._file_file):
            for block in self._read_back(spilled):
                checksum.update(block)
                yield block
        yield checksum.digest()

    def close(self) -> None:
        """Drop the files; harmless when they were."""
        with suppress(OSError):  # on a full disk what was not written yet cannot be, and nobody wants it any more
            self._opened.close()

    def _read_back(self, spilled: BinaryIO) -> Iterator[bytes]:
        with self._naming_errors():
            spilled.seek(0)
            block = spilled.read(_BLOCK)
        while block:
            yield block
            with self._naming_errors():
                block = spilled.read(_BLOCK)

    @contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise VmbackupError(
                "scratch_failed",
                "the index could not be kept in {}: {}".format(self._folder, error.strerror or error),
                "give a folder with 64 MiB of space per TiB of disks",
            ) from error


class ArchiveIndex:
    """An index in memory: 60 bytes a member, and every file's record."""

    def __init__(self, members: bytes, files: List[FileRecord], codec: Codec) -> None:
        self._members = members
        self.member_count = len(members) // _MEMBER.size
        self.files = files
        self.codec = codec

    @classmethod
    def parse(cls, data: bytes) -> "ArchiveIndex":
        """Read an index; raises archive_index_damaged unless its checksum and its structure hold."""
        body = memoryview(data)[:-_CHECKSUM_SIZE]
        if len(body) < _HEAD.size or hashlib.sha256(body).digest() != data[-_CHECKSUM_SIZE:]:
            raise _damaged("its checksum does not hold")
        magic, version, record_size, members, file_count, table_size, codec, level = _HEAD.unpack_from(body)
        if (magic, version, record_size) != (_MAGIC, _VERSION, _MEMBER.size):
            raise _damaged("it is of another version")
        table = _HEAD.size + members * record_size
        if table + table_size != len(body):
            raise _damaged("its tables do not fill it")
        name = codec.rstrip(b"\0").decode("ascii", "replace")
        files = list(_parse_files(body[table:]))
        if len(files) != file_count:
            raise _damaged("it holds another number of files than it says")
        return cls(bytes(body[_HEAD.size : table]), files, Codec(name, level))

    def member(self, number: int) -> MemberRecord:
        """Return one member's record; raises archive_index_damaged when it holds what no writer wrote."""
        record = MemberRecord(*_MEMBER.unpack_from(self._members, number * _MEMBER.size))
        if not 0 < record.tar_length <= (ZERO_RUN if record.flags & FLAG_ZERO else CHUNK):
            raise _damaged("member {} has an impossible size".format(number))
        return record

    def find(self, tar_offset: int) -> int:
        """Return the number of the member that holds a byte of the tar stream; raises archive_index_damaged."""
        low, high = 0, self.member_count
        while low < high:
            middle = (low + high) // 2
            if self.member(middle).tar_offset <= tar_offset:
                low = middle + 1
            else:
                high = middle
        if low:
            record = self.member(low - 1)
            if record.tar_offset <= tar_offset < record.tar_offset + record.tar_length:
                return low - 1
        raise _damaged("no member holds byte {} of the tar stream".format(tar_offset))

    def by_name(self) -> Dict[str, FileRecord]:
        """Return the files by name; of two with one name the later, as tar extracts them."""
        return {record.name: record for record in self.files}


def pack_record(record: MemberRecord) -> bytes:
    """Return a member's record as ArchiveIndex takes it."""
    return _MEMBER.pack(*record)


def _parse_files(table: memoryview) -> Iterator[FileRecord]:
    position = 0
    while position < len(table):
        if position + _FILE.size > len(table):
            raise _damaged("its file table is cut")
        tar_offset, size, first_member, digest, name_length = _FILE.unpack_from(table, position)
        position += _FILE.size
        name = bytes(table[position : position + name_length])
        position += name_length
        if len(name) < name_length:
            raise _damaged("its file table is cut")
        yield FileRecord(name.decode("utf-8", "surrogateescape"), tar_offset, size, first_member, digest)


def _damaged(why: str) -> VmbackupError:
    return VmbackupError(
        "archive_index_damaged",
        "the archive's index is damaged: {}".format(why),
        "rebuild the index from the archive's members",
    )
