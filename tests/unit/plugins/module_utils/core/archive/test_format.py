# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second reader, written from docs/format.md alone: offsets and sizes are the page's, nothing of ours is imported."""

from __future__ import annotations

import hashlib
import zlib


def u(data, offset, size):
    return int.from_bytes(data[offset : offset + size], "little")


def members(data, start, end):
    """Yield (place, length, flags, content) by the members' own lengths."""
    while start < end:
        assert data[start : start + 10] == bytes.fromhex("1f8b08040000000000ff")
        assert data[start + 12 : start + 14] == b"VB"
        padding, length, flags = u(data, start + 10, 2) - 12, u(data, start + 16, 4), u(data, start + 20, 4)
        assert u(data, start + 14, 2) == 8 + padding
        assert length % 4096 == 0
        assert padding < 4096
        assert not any(data[start + 24 : start + 24 + padding])
        content = zlib.decompress(data[start + 24 + padding : start + length - 8], -15)
        assert (u(data, start + length - 8, 4), u(data, start + length - 4, 4)) == (zlib.crc32(content), len(content))
        yield start, length, flags, content
        start += length


def test_a_reader_written_from_the_page_reads_an_archive(archive, contents):
    footer = archive[-78:]
    assert (u(footer, 10, 2), u(footer, 16, 4), u(footer, 20, 4), footer[24:28]) == (56, 78, 2, b"VF\x28\0")
    assert u(footer, 64, 4) == zlib.crc32(footer[28:64])
    place, length, tar_place, size = (u(footer, offset, 8) for offset in (32, 40, 48, 56))
    assert place + length == len(archive) - 78
    index = b"".join(content for *_rest, content in members(archive, place, place + length))[512 : 512 + size]
    assert index[-32:] == hashlib.sha256(index[:-32]).digest()
    assert (index[:8], u(index, 8, 4), u(index, 12, 4)) == (b"VMBINDEX", 1, 60)
    count, files, table = u(index, 16, 8), u(index, 24, 8), u(index, 32, 8)
    assert index[40:48].rstrip(b"\0") in (b"isal", b"zlib")

    stream = b""
    for number, (start, member_length, flags, content) in enumerate(members(archive, 0, place)):
        record = index[64 + 60 * number : 124 + 60 * number]
        assert (u(record, 0, 8), u(record, 8, 8)) == (start, len(stream))
        assert (u(record, 16, 4), u(record, 20, 4), u(record, 24, 4)) == (member_length, len(content), flags)
        assert record[28:] == hashlib.sha256(content).digest()
        assert any(content) != (flags == 1)
        stream += content
    assert (number + 1, len(stream)) == (count, tar_place)

    at = 64 + 60 * count
    assert at + table + 32 == len(index)
    for name, content in contents.items():
        record = index[at : at + 58]
        at += 58 + u(record, 56, 2)
        assert index[at - u(record, 56, 2) : at].decode() == name
        begin = u(record, 0, 8)
        assert stream[begin : begin + u(record, 8, 8)] == content
        first = index[64 + 60 * u(record, 16, 8) :]
        assert not content or u(first, 8, 8) <= begin < u(first, 8, 8) + u(first, 20, 4)
        pieces = (content[n : n + 1048576] for n in range(0, len(content), 1048576))
        assert record[24:56] == hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in pieces)).digest()
    assert (at, files) == (len(index) - 32, len(contents))
