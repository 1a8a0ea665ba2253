# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read single members back, distrusting every byte of them.

Invariant: at most MAX_MEMBER bytes are read and CHUNK + 1 inflated at a time, whatever the input says.
"""

from __future__ import annotations

import hashlib
from typing import Dict, NamedTuple, Set, Tuple

from ..errors import VmbackupError
from .codecs import BrokenStream, crc32, inflate, inflate_pieces
from .digests import zeros_digest
from .members import CHUNK, FLAG_ZERO, HEAD_SIZE, TAIL_SIZE, ZERO_RUN, MemberHead, parse_head, parse_tail
from .storage import Storage


class RawMember(NamedTuple):
    """A member as it is stored. offset: in the archive. body: its deflate stream."""

    offset: int
    head: MemberHead
    body: memoryview
    content_crc: int
    content_length: int


def read_raw(storage: Storage, offset: int) -> RawMember:
    """Read the member at `offset` without inflating it; raises archive_truncated, archive_member_damaged."""
    head = parse_head(storage.read(offset, min(HEAD_SIZE, storage.size - offset)), offset)
    return split_member(storage.read(offset, head.length), offset)


def split_member(data: bytes, offset: int) -> RawMember:
    """Take the member at `offset` apart; raises archive_member_damaged."""
    head = parse_head(data, offset)
    content_crc, content_length = parse_tail(data)
    limit = ZERO_RUN if head.flags & FLAG_ZERO else CHUNK
    if head.length != len(data) or any(data[HEAD_SIZE : head.body_start]) or content_length > limit:
        raise _damaged(offset, "has an impossible length or padding")
    body = memoryview(data)[head.body_start : len(data) - TAIL_SIZE]
    return RawMember(offset, head, body, content_crc, content_length)


def inflate_member(raw: RawMember) -> bytes:
    """Return a member's content (no run of zeros); raises archive_member_damaged."""
    if raw.content_length > CHUNK:
        raise _damaged(raw.offset, "claims to inflate to {} bytes".format(raw.content_length))
    try:
        data = inflate(raw.body, raw.content_length)
    except BrokenStream as error:
        raise _damaged(raw.offset, str(error)) from error
    if crc32(data) != raw.content_crc:
        raise _damaged(raw.offset, "does not match its CRC-32")
    return data


def check_digest(raw: RawMember, actual: bytes, expected: bytes) -> None:
    """Compare a content's SHA-256; raises archive_member_damaged."""
    if actual != expected:
        raise _damaged(raw.offset, "does not match its SHA-256")


class ZeroCheck:
    """Check runs of zeros piecewise; equal members are checked once."""

    def __init__(self) -> None:
        self._known: Set[Tuple[int, int, bytes]] = set()
        self._digests: Dict[int, bytes] = {}

    def digest(self, length: int) -> bytes:
        """Return the SHA-256 of `length` zeros."""
        if length not in self._digests:
            self._digests[length] = zeros_digest(length)
        return self._digests[length]

    def check(self, raw: RawMember) -> None:
        """Raise archive_member_damaged unless the member inflates to zeros, as many as it says."""
        key = (raw.content_crc, raw.content_length, hashlib.sha256(raw.body).digest())
        if key in self._known:
            return
        length, checksum = 0, 0
        try:
            for piece in inflate_pieces(raw.body, CHUNK):
                length += len(piece)
                checksum = crc32(piece, checksum)
                if length > raw.content_length or piece.count(0) != len(piece):
                    raise _damaged(raw.offset, "is marked as zeros and holds something else")
        except BrokenStream as error:
            raise _damaged(raw.offset, str(error)) from error
        if (length, checksum) != (raw.content_length, raw.content_crc):
            raise _damaged(raw.offset, "does not match its length and CRC-32")
        self._known.add(key)


def _damaged(offset: int, how: str) -> VmbackupError:
    return VmbackupError(
        "archive_member_damaged",
        "the member at byte {} of the archive {}".format(offset, how),
        "restore from another backup; what lies in other members is intact",
    )
