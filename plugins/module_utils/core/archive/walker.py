# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rebuild an archive's index from its members, when the index is lost or damaged.

Invariant: what could not be read is named in `problems`, never left out silently; reading ends on any input.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import BinaryIO, List, Optional, Tuple, Union

from ..errors import VmbackupError
from .codecs import Codec
from .index import ArchiveIndex, FileRecord, MemberRecord, pack_record
from .members import (
    ALIGNMENT,
    CHUNK,
    FLAG_ZERO,
    FOOTER_SIZE,
    HEAD_SIZE,
    TAIL_SIZE,
    ZERO_RUN,
    parse_footer,
    parse_head,
    parse_tail,
)
from .reader import ArchiveReader
from .storage import Storage
from .tar_entries import TarEntry, tar_entries
from .tar_headers import INDEX_NAME
from .unpacking import ZeroCheck, inflate_member, read_raw
from .verify import file_digest

_UNKNOWN_DIGEST = bytes(32)
_UNKNOWN_CODEC = Codec("unknown", 0)


@dataclass(frozen=True)
class Rebuilt:
    """What could be read. index: for ArchiveReader. problems: sentences on what could not; none: all was read."""

    index: ArchiveIndex
    problems: Tuple[str, ...]


def rebuild(archive: Union[str, "os.PathLike[str]", BinaryIO]) -> Rebuilt:
    """Walk an archive member by member, then through its tar headers.

    archive: path, or a binary file that can seek. A damaged member is passed over: its content's length stands in its
    last bytes. A file whose digest could not be worked out has 32 zero bytes for it. Raises archive_unreadable, and
    not_an_archive when nothing of ours is in it.
    """
    problems: List[str] = []
    storage = Storage(archive)
    try:
        members, lost = _walk_members(storage, problems)
    finally:
        storage.close()
    if not members:
        raise VmbackupError("not_an_archive", "the file holds no member of an archive of this format")
    with ArchiveReader(archive, index=ArchiveIndex(members, [], _UNKNOWN_CODEC)) as reader:
        files = _walk_files(reader, lost, problems)
    return Rebuilt(ArchiveIndex(members, files, _UNKNOWN_CODEC), tuple(problems))


def _walk_members(storage: Storage, problems: List[str]) -> Tuple[bytes, List[range]]:
    """Return the members' records, packed, and the ranges of the tar stream that are damaged."""
    lost = []
    zeros = ZeroCheck()
    table = bytearray()
    offset = tar_offset = 0
    end = _footer_start(storage, problems)
    while offset < end:
        record = _intact(storage, zeros, offset, tar_offset)
        if record is None:
            record = _damaged(storage, offset, tar_offset)
            if record is None:
                problems.append("the last {} bytes of the archive are no whole member".format(storage.size - offset))
                break
            problems.append("the member at byte {} of the archive is damaged".format(offset))
            lost.append(range(tar_offset, tar_offset + record.tar_length))
        table += pack_record(record)
        offset += record.length
        tar_offset += record.tar_length
    return bytes(table), lost


def _footer_start(storage: Storage, problems: List[str]) -> int:
    """Return where the members end: at the footer if there is one."""
    start = max(0, storage.size - FOOTER_SIZE)
    try:
        parse_footer(storage.read(start, storage.size - start))
    except VmbackupError as error:
        problems.append(error.message)
        return storage.size
    return start


def _intact(storage: Storage, zeros: ZeroCheck, offset: int, tar_offset: int) -> Optional[MemberRecord]:
    try:
        raw = read_raw(storage, offset)
        if raw.head.flags & FLAG_ZERO:
            zeros.check(raw)
            digest = zeros.digest(raw.content_length)
        else:
            digest = hashlib.sha256(inflate_member(raw)).digest()
    except VmbackupError:
        return None
    return MemberRecord(offset, tar_offset, raw.head.length, raw.content_length, raw.head.flags, digest)


def _damaged(storage: Storage, offset: int, tar_offset: int) -> Optional[MemberRecord]:
    """Describe a damaged member by where the next one starts and by its own last bytes."""
    following = offset + ALIGNMENT
    while not _starts_member(storage, following):
        following += ALIGNMENT
        if following >= storage.size:
            return None
    _crc, tar_length = parse_tail(storage.read(following - TAIL_SIZE, TAIL_SIZE))
    if not 0 < tar_length <= ZERO_RUN:
        return None
    flags = 0 if tar_length <= CHUNK else FLAG_ZERO
    return MemberRecord(offset, tar_offset, following - offset, tar_length, flags, _UNKNOWN_DIGEST)


def _starts_member(storage: Storage, offset: int) -> bool:
    try:
        parse_head(storage.read(offset, HEAD_SIZE), offset)
    except VmbackupError:
        return False
    return True


def _walk_files(reader: ArchiveReader, lost: List[range], problems: List[str]) -> List[FileRecord]:
    files: List[FileRecord] = []
    last = reader.index.member(reader.index.member_count - 1)
    end = last.tar_offset + last.tar_length
    try:
        for entry in tar_entries(reader.tar_bytes, end):
            if entry.name == INDEX_NAME:
                break
            files.append(_file(reader, entry, lost, problems))
    except VmbackupError as error:
        after = files[-1].name if files else "the start"
        problems.append("what follows {!r} cannot be told apart: {}".format(after, error.message))
    return files


def _file(reader: ArchiveReader, entry: TarEntry, lost: List[range], problems: List[str]) -> FileRecord:
    record = FileRecord(entry.name, entry.offset, entry.size, 0, _UNKNOWN_DIGEST)
    try:
        if entry.size:
            record = record._replace(first_member=reader.index.find(entry.offset))
            reader.index.find(entry.offset + entry.size - 1)
        if any(entry.offset < part.stop and part.start < entry.offset + entry.size for part in lost):
            problems.append("{!r} is not whole: a member of it is damaged".format(entry.name))
            return record
        return record._replace(digest=file_digest(reader, record))
    except VmbackupError as error:
        problems.append("{!r} is not whole: {}".format(entry.name, error.message))
        return record
