# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare an archive with its own index: every member, every file, every tar header.

Invariant: an archive that passes is one that `gzip -t`, `tar` and our reader read to the same, recorded content.
"""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Deque, Optional

from ..errors import VmbackupError
from .digests import ZERO_CHUNK_DIGEST
from .index import ArchiveIndex, FileRecord, MemberRecord
from .index_entry import read_footer
from .members import CHUNK, FLAG_ZERO
from .tar_entries import tar_entries
from .threads import default_threads
from .unpacking import ZeroCheck, check_digest, inflate_member

if TYPE_CHECKING:
    from .reader import ArchiveReader


def verify_archive(reader: ArchiveReader, threads: Optional[int] = None) -> None:
    """Read everything in `threads` threads; raises for the first thing that does not hold.

    archive_member_damaged, archive_structure_damaged, archive_truncated, archive_index_damaged.
    """
    footer = read_footer(reader.storage)
    _check_chain(reader.index, footer.index_offset, footer.tar_offset)
    _check_members(reader, threads or default_threads())
    _check_files(reader, footer.tar_offset)


def file_digest(reader: ArchiveReader, record: FileRecord) -> bytes:
    """Work out a file's digest: from its members' recorded digests where these are its pieces, else from its bytes."""
    digest = hashlib.sha256()
    position, end = record.tar_offset, record.tar_offset + record.size
    number = reader.index.find(position) if record.size else 0
    while position < end:
        member = reader.index.member(number)
        length = min(CHUNK, end - position)
        whole = member.tar_offset == position and member.tar_length <= end - position
        if whole and member.flags & FLAG_ZERO and member.tar_length % CHUNK == 0:
            digest.update(ZERO_CHUNK_DIGEST * (member.tar_length // CHUNK))
            length = member.tar_length
        elif whole and member.tar_length == length:
            digest.update(member.digest)
        else:
            piece = bytearray(length)
            reader.read_tar(position, memoryview(piece))
            digest.update(hashlib.sha256(piece).digest())
        position += length
        while number + 1 < reader.index.member_count and reader.index.member(number + 1).tar_offset <= position:
            number += 1
    return digest.digest()


def _check_chain(index: ArchiveIndex, archive_end: int, tar_end: int) -> None:
    """Require that the members follow one another from the start of the archive to the index."""
    place = (0, 0)
    for number in range(index.member_count):
        member = index.member(number)
        if (member.offset, member.tar_offset) != place:
            raise _damaged("member {} does not follow the one before".format(number))
        place = (member.offset + member.length, member.tar_offset + member.tar_length)
    if place != (archive_end, tar_end):
        raise _damaged("the members do not reach to the index")


def _check_members(reader: ArchiveReader, threads: int) -> None:
    zeros = ZeroCheck()
    waiting: Deque[Future[None]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for number in range(reader.index.member_count):
            waiting.append(pool.submit(_check_member, reader, zeros, reader.index.member(number)))
            if len(waiting) > 2 * threads:
                waiting.popleft().result()
        while waiting:
            waiting.popleft().result()


def _check_member(reader: ArchiveReader, zeros: ZeroCheck, record: MemberRecord) -> None:
    raw = reader.raw_member(record)
    if record.flags & FLAG_ZERO:
        zeros.check(raw)
        check_digest(raw, zeros.digest(record.tar_length), record.digest)
    else:
        check_digest(raw, hashlib.sha256(inflate_member(raw)).digest(), record.digest)


def _check_files(reader: ArchiveReader, tar_end: int) -> None:
    files = iter(reader.index.files)
    for entry in tar_entries(reader.tar_bytes, tar_end):
        record = next(files, None)
        if record is None or (entry.name, entry.offset, entry.size) != (record.name, record.tar_offset, record.size):
            raise _damaged("the tar's entry {!r} is not the one in the index".format(entry.name))
        if record.size and record.first_member != reader.index.find(record.tar_offset):
            raise _damaged("the index names another member for {!r}".format(entry.name))
        if file_digest(reader, record) != record.digest:
            raise _damaged("the digest of {!r} is not the one in the index".format(entry.name))
    if next(files, None) is not None:
        raise _damaged("the index names files that the tar does not hold")


def _damaged(why: str) -> VmbackupError:
    return VmbackupError(
        "archive_structure_damaged",
        "the archive contradicts itself: {}".format(why),
        "rebuild the index from the archive's members, and compare what it yields",
    )
