# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Frame gzip members: self-describing, reproducible, a multiple of 4 KiB long.

Invariants: equal content makes an equal member (no name, no time); every member but the footer is a multiple of 4 KiB
long, and starts at one; the member's own length stands in its FEXTRA field. docs/format.md has the byte tables.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from typing import Dict, List, NamedTuple, Sequence, Tuple

from ..errors import VmbackupError
from .codecs import Buffer, Codec, crc32, deflate

CHUNK = 1 << 20
ALIGNMENT = 4096
ZERO_RUN = 64 * CHUNK
MAX_MEMBER = 2 * CHUNK  # a stored chunk, a run of zeros and their frames all stay far below

FLAG_ZERO = 1
FLAG_FOOTER = 2

_MAGIC = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff"  # deflate, FEXTRA only, no time, unknown system
_HEAD = struct.Struct("<10sH2sHII")
_TAIL = struct.Struct("<II")
_FOOTER = struct.Struct("<IQQQQ")
_EMPTY_DEFLATE = b"\x03\x00"
_VERSION = 1

HEAD_SIZE = _HEAD.size
TAIL_SIZE = _TAIL.size
FOOTER_SIZE = HEAD_SIZE + 4 + _FOOTER.size + 4 + len(_EMPTY_DEFLATE) + TAIL_SIZE


class MemberHead(NamedTuple):
    """A member as its first 24 bytes describe it."""

    length: int
    flags: int
    body_start: int


class Footer(NamedTuple):
    """Where the index stands."""

    index_offset: int  # of its first member in the archive
    index_length: int  # of its members in the archive
    tar_offset: int  # of its tar header in the tar stream
    index_size: int  # of its content


class ZeroMember(NamedTuple):
    """A prepared member of zeros, and the digest of its content."""

    member: bytes
    digest: bytes


def frame(body: Sequence[bytes], content_crc: int, content_length: int, flags: int = 0) -> bytes:
    """Return the gzip member around a raw deflate stream (given in pieces)."""
    bare = HEAD_SIZE + sum(len(piece) for piece in body) + TAIL_SIZE
    padding = -bare % ALIGNMENT
    head = _HEAD.pack(_MAGIC, 12 + padding, b"VB", 8 + padding, bare + padding, flags)
    return b"".join((head, bytes(padding), *body, _TAIL.pack(content_crc, content_length)))


def pack_member(codec: Codec, data: Buffer) -> bytes:
    """Return `data` (at most CHUNK bytes) as one member."""
    return frame(deflate(codec, data), crc32(data), len(data))


def parse_head(head: bytes, offset: int) -> MemberHead:
    """Read the first HEAD_SIZE bytes of the member at `offset`; raises archive_member_damaged if it is none of ours."""
    if len(head) >= HEAD_SIZE:
        magic, extra, mark, field, length, flags = _HEAD.unpack_from(head)
        found = MemberHead(length, flags, 12 + extra)
        footer = flags == FLAG_FOOTER and length == FOOTER_SIZE
        aligned = flags in (0, FLAG_ZERO) and length % ALIGNMENT == 0 and extra == field + 4
        fits = found.body_start + TAIL_SIZE < length <= MAX_MEMBER
        if (magic, mark) == (_MAGIC, b"VB") and fits and (aligned or footer):
            return found
    raise VmbackupError(
        "archive_member_damaged",
        "no member starts at byte {} of the archive".format(offset),
        "restore from another backup; what lies in other members is intact",
    )


def parse_tail(member: Buffer) -> Tuple[int, int]:
    """Return (CRC-32, content length) from a member's last 8 bytes."""
    content_crc, content_length = _TAIL.unpack_from(member, len(member) - TAIL_SIZE)
    return content_crc, content_length


def pack_footer(footer: Footer) -> bytes:
    """Return the archive's last member: empty, with the index's place in its FEXTRA field."""
    place = _FOOTER.pack(_VERSION, *footer)
    head = _HEAD.pack(_MAGIC, FOOTER_SIZE - 12 - len(_EMPTY_DEFLATE) - TAIL_SIZE, b"VB", 8, FOOTER_SIZE, FLAG_FOOTER)
    field = struct.pack("<2sH", b"VF", len(place) + 4)
    return head + field + place + struct.pack("<I", zlib.crc32(place)) + _EMPTY_DEFLATE + _TAIL.pack(0, 0)


def parse_footer(data: bytes) -> Footer:
    """Read the archive's last FOOTER_SIZE bytes; raises archive_index_damaged when they are no intact footer."""
    if len(data) == FOOTER_SIZE:
        version, *place = _FOOTER.unpack_from(data, HEAD_SIZE + 4)
        footer = Footer(*place)
        if version == _VERSION and data == pack_footer(footer):
            return footer
    raise VmbackupError(
        "archive_index_damaged",
        "the archive does not end with an intact footer",
        "rebuild its index from its members; what follows a cut is lost",
    )


class ZeroMembers:
    """Prepared members of zeros, kept by length.

    A run of n chunks is n times one flushed piece of deflate: no run is ever compressed as such. Only the checksums of
    each length have to be worked out, each from the one before.
    """

    def __init__(self) -> None:
        self._zeros = bytes(CHUNK)
        stream = zlib.compressobj(6, zlib.DEFLATED, -15)
        self._piece = stream.compress(self._zeros) + stream.flush(zlib.Z_FULL_FLUSH)
        self._sha256 = hashlib.sha256()
        self._crcs: List[int] = [0]
        self._digests: List[bytes] = [self._sha256.digest()]
        self._made: Dict[int, ZeroMember] = {}

    def get(self, length: int) -> ZeroMember:
        """Return the member of `length` zeros: a multiple of CHUNK up to ZERO_RUN, or less than CHUNK."""
        if length not in self._made:
            self._made[length] = self._run(length // CHUNK) if length % CHUNK == 0 else self._part(length)
        return self._made[length]

    def _run(self, chunks: int) -> ZeroMember:
        while len(self._crcs) <= chunks:
            self._sha256.update(self._zeros)
            self._digests.append(self._sha256.digest())
            self._crcs.append(zlib.crc32(self._zeros, self._crcs[-1]))
        body = (self._piece * chunks, _EMPTY_DEFLATE)
        return ZeroMember(frame(body, self._crcs[chunks], chunks * CHUNK, FLAG_ZERO), self._digests[chunks])

    def _part(self, length: int) -> ZeroMember:
        zeros = self._zeros[:length]
        stream = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = (stream.compress(zeros), stream.flush())
        return ZeroMember(frame(body, zlib.crc32(zeros), length, FLAG_ZERO), hashlib.sha256(zeros).digest())
