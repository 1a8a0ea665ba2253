# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second reader of tree.idx, written from docs/format.md alone: offsets and sizes are the page's."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zlib

ROW = 48


def u(data, offset, size):
    return int.from_bytes(data[offset : offset + size], "little")


def row(data):
    return tuple(int.from_bytes(data[place : place + 8], "little", signed=True) for place in range(0, ROW, 8))


def records(data, place):
    """Yield (path, flags, own row, {name: row}, size) and check what the page promises; return nothing after the end."""
    totals = [0, 0, 0]
    while data[place] == 1:
        path_size, payload_size, count, names_size = (u(data, place + offset, 4) for offset in (4, 8, 12, 16))
        path = data[place + 92 : place + 92 + path_size]
        content = zlib.decompress(data[place + 92 + path_size : place + 92 + path_size + payload_size])
        assert len(content) == names_size + ROW * count
        names, planes = content[:names_size], content[names_size:]
        rows = [bytes(planes[plane * count + number] for plane in range(ROW)) for number in range(count)]
        own = data[place + 28 : place + 76]
        digested = data[place + 12 : place + 20] + own + names + b"".join(rows)
        assert data[place + 76 : place + 92] == hashlib.blake2b(digested, digest_size=16).digest()
        entries = dict(zip(names.split(b"\0"), map(row, rows))) if count else {}
        assert list(entries) == sorted(entries)
        assert sum(each[0] for each in entries.values()) == u(data, place + 20, 8)
        yield path, data[place + 1], row(own), entries
        totals = [totals[0] + 1, totals[1] + count, totals[2] + u(data, place + 20, 8)]
        place += 92 + path_size + payload_size
    assert data[place : place + 8] == bytes(8)
    assert [u(data, place + offset, 8) for offset in (8, 16, 24)] == totals
    assert len(data) == place + 64


def test_a_reader_written_from_the_page_reads_an_index(ground):
    ground.write(b"a", b"12345")
    ground.write(b"sub/\xff", b"1")
    os.link(ground.path(b"a"), ground.path(b"sub/link"))
    os.symlink(b"a", ground.path(b"sub/symlink"))
    ground.scan()
    with open(ground.index, "rb") as file:
        data = file.read()
    assert (data[:8], u(data, 8, 4)) == (b"VMBTREEI", 1)
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()
    header = json.loads(data[16 : 16 + u(data, 12, 4)])
    assert (header["vm"], header["root"], header["rules"]["paths"]) == ("web01", "/", [os.fsdecode(ground.root)])
    found = {path: rest for path, *rest in records(data, 16 + u(data, 12, 4))}
    keys = [path.replace(b"/", b"\0") for path in found]
    assert keys == sorted(keys)
    assert keys[0] == b""
    flags, own, entries = found[ground.inside + b"/sub"]
    assert (flags, set(entries)) == (2, {b"\xff", b"link", b"symlink"})
    on_disk = os.stat(ground.path(b"sub"))
    assert own == (0, on_disk.st_mtime_ns, on_disk.st_ctime_ns, on_disk.st_ino, on_disk.st_mode, owner(on_disk))
    on_disk = os.stat(ground.path(b"a"))
    expected = (5, on_disk.st_mtime_ns, on_disk.st_ctime_ns, on_disk.st_ino, on_disk.st_mode | 1 << 16, owner(on_disk))
    assert entries[b"link"] == expected
    assert entries[b"symlink"][0] == 0
    folder = found[ground.inside][2][b"sub"]
    assert folder == (0, 0, 0, os.stat(ground.path(b"sub")).st_ino, stat.S_IFDIR, 0)
    assert found[b""][0] == 1
    assert list(found[b""][2]) == [ground.inside.split(b"/")[0]]


def owner(status):
    return status.st_uid << 32 | status.st_gid
