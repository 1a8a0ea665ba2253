# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read an archive at random: files by name, any byte range, through a cache of inflated members.

Invariant: a byte is returned only from a member whose length and CRC-32 (and, when asked, SHA-256) hold; at most
CACHED_MEMBERS inflated members are kept.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from types import TracebackType
from typing import BinaryIO, List, Optional, Type, Union

from ..errors import VmbackupError
from .archived_content import ArchivedContent
from .index import ArchiveIndex, FileRecord, MemberRecord
from .index_entry import read_index
from .members import FLAG_ZERO, MAX_MEMBER
from .storage import Storage
from .unpacking import RawMember, check_digest, inflate_member, split_member
from .verify import verify_archive

CACHED_MEMBERS = 16


class ArchiveReader:
    """An archive that was written by ArchiveWriter; its methods may be called from several threads."""

    def __init__(
        self,
        archive: Union[str, "os.PathLike[str]", BinaryIO],
        *,
        index: Optional[ArchiveIndex] = None,
        check_digests: bool = False,
    ) -> None:
        """archive: path, or a binary file that can seek. index: one that was rebuilt; None: the archive's own.

        check_digests: compare each member with its SHA-256 as well. Raises archive_unreadable, archive_index_damaged.
        """
        self.storage = Storage(archive)
        self._check_digests = check_digests
        self._cache: "OrderedDict[int, bytes]" = OrderedDict()
        self._lock = threading.Lock()
        try:
            self.index = read_index(self.storage) if index is None else index
        except BaseException:
            self.storage.close()
            raise
        self._by_name = self.index.by_name()

    def __enter__(self) -> "ArchiveReader":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the archive if it was opened here."""
        self.storage.close()

    @property
    def files(self) -> List[FileRecord]:
        """The files, in the tar's order."""
        return list(self.index.files)

    def open(self, name: str) -> ArchivedContent:
        """Open a file's content for reading; raises archive_file_missing."""
        record = self._by_name.get(name)
        if record is None:
            raise VmbackupError("archive_file_missing", "the archive holds no file named {!r}".format(name))
        return ArchivedContent(self.read_tar, record.tar_offset, record.size)

    def verify(self, threads: Optional[int] = None) -> None:
        """Read everything and compare it with the index: members, digests, files, tar headers.

        threads: how many; None: one per core, up to 4. Raises archive_member_damaged, archive_structure_damaged.
        """
        verify_archive(self, threads)

    def read_tar(self, offset: int, view: memoryview) -> None:
        """Fill `view` from the tar stream; raises archive_index_damaged, archive_member_damaged, archive_truncated."""
        done = 0
        while done < len(view):
            number = self.index.find(offset + done)
            record = self.index.member(number)
            start = offset + done - record.tar_offset
            length = min(record.tar_length - start, len(view) - done)
            if record.flags & FLAG_ZERO:
                view[done : done + length] = bytes(length)
            else:
                view[done : done + length] = memoryview(self._content(number, record))[start : start + length]
            done += length

    def tar_bytes(self, offset: int, length: int) -> bytes:
        """Return bytes of the tar stream; raises as read_tar does."""
        data = bytearray(length)
        self.read_tar(offset, memoryview(data))
        return bytes(data)

    def raw_member(self, record: MemberRecord) -> RawMember:
        """Return a member as stored, once it agrees with its record; raises archive_member_damaged."""
        raw = split_member(self.storage.read(record.offset, min(record.length, MAX_MEMBER)), record.offset)
        if (raw.head.length, raw.content_length, raw.head.flags) != (record.length, record.tar_length, record.flags):
            raise VmbackupError(
                "archive_member_damaged",
                "the member at byte {} of the archive disagrees with the index".format(record.offset),
                "rebuild the index from the archive's members",
            )
        return raw

    def _content(self, number: int, record: MemberRecord) -> bytes:
        with self._lock:
            if number in self._cache:
                self._cache.move_to_end(number)
                return self._cache[number]
        raw = self.raw_member(record)
        data = inflate_member(raw)
        if self._check_digests:
            check_digest(raw, hashlib.sha256(data).digest(), record.digest)
        with self._lock:
            self._cache[number] = data
            while len(self._cache) > CACHED_MEMBERS:
                self._cache.popitem(last=False)
        return data
