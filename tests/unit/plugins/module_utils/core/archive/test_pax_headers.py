# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import tarfile
from typing import Dict

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.pax_headers import (
    HARD_LINK,
    REGULAR,
    SYMLINK,
    PaxEntry,
    pax_header,
)
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.tar_entries import tar_entries

NAMES = st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name and not name.startswith(b"/"))
TIMES = st.integers(-(1 << 62), 1 << 62)


def read_back(header: bytes) -> tarfile.TarInfo:
    return tarfile.TarInfo.frombuf(header[-512:], "utf-8", "surrogateescape")


def records_of(header: bytes) -> Dict[bytes, bytes]:
    """Take the records apart by their lengths alone."""
    found = {}
    body = header[512:-512]
    while body[:1].isdigit():
        length = int(body.split(b" ", 1)[0])
        key, _equals, value = body[:length].split(b" ", 1)[1][:-1].partition(b"=")
        assert body[length - 1 : length] == b"\n"
        found[key] = value
        body = body[length:]
    assert not body.strip(b"\0")
    return found


@given(
    name=NAMES, mtime=TIMES, size=st.integers(0, 1 << 50), uid=st.integers(0, 1 << 32), value=st.binary(max_size=200)
)
def test_every_field_is_read_back_exactly(name: bytes, mtime: int, size: int, uid: int, value: bytes) -> None:
    entry = PaxEntry(name, REGULAR, 0o4755, uid, 7, mtime, size, records={b"SCHILY.xattr.user.a": value})
    header = pax_header(entry)
    assert pax_header(entry) == header and len(header) % 512 == 0
    info, records = read_back(header), records_of(header)
    assert records.get(b"path", info.name.encode("utf-8", "surrogateescape").rstrip(b"\0")) in (name, name.rstrip(b"/"))
    assert (info.mode, info.gid, info.size) == (0o4755, 7, size)
    assert int(records.get(b"uid", b"%d" % info.uid)) == uid
    assert int(records.get(b"size", b"%d" % size)) == size
    seconds, _dot, fraction = records.get(b"mtime", b"%d.000000000" % info.mtime).partition(b".")
    sign = -1 if seconds.startswith(b"-") else 1
    assert int(seconds) * 1_000_000_000 + sign * int(fraction) == mtime
    assert records[b"SCHILY.xattr.user.a"] == value
    assert (b"hdrcharset" in records) == (not _is_utf8(name))


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(name=NAMES, link=NAMES)
def test_our_own_reader_finds_the_name_and_no_content_of_links(name: bytes, link: bytes) -> None:
    stream = b"".join(
        pax_header(PaxEntry(name, kind, 0o777, 0, 0, 0, link=link)) for kind in (SYMLINK, HARD_LINK)
    ) + bytes(1024)
    entries = list(tar_entries(lambda offset, length: stream[offset : offset + length], len(stream)))
    assert [entry.size for entry in entries] == [0, 0]
    assert {entry.name.encode("utf-8", "surrogateescape") for entry in entries} <= {name, name.rstrip(b"/")}
