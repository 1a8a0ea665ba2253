# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.tar_entries import tar_entries
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.tar_headers import (
    END_OF_TAR,
    gnu_header,
    padding,
)
from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError

NAMES = st.text(
    st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=300
).filter(lambda name: not name.startswith("/") and ".." not in name.split("/") and not name.endswith("/"))


@given(NAMES, st.integers(0, 2000), st.integers(-(1 << 40), 1 << 40), st.integers(0, 0o7777))
def test_python_reads_the_header_back(name, size, mtime, mode):
    stream = gnu_header(name, size, mtime=mtime, mode=mode) + bytes(size + padding(size)) + END_OF_TAR
    with tarfile.open(fileobj=io.BytesIO(stream), encoding="utf-8") as tar:
        (member,) = tar.getmembers()
    assert (member.name, member.size, member.mtime, member.mode) == (name, size, mtime, mode)
    assert (member.uid, member.gid, member.isreg(), member.issparse()) == (0, 0, True, False)


@given(NAMES, st.sampled_from([0, 1, 0o77777777777, 0o100000000000, 62 << 40]))
def test_our_own_parser_reads_the_header_back(name, size):
    stream = gnu_header(name, size, mtime=5, mode=0o600)
    (entry,) = tar_entries(lambda start, length: stream[start : start + length], len(stream))
    assert (entry.name, entry.size, entry.offset, entry.header, entry.regular) == (name, size, len(stream), 0, True)


def test_a_size_over_8_gib_is_base_256():
    header = gnu_header("disk", 8 << 30, mtime=0, mode=0o600)
    assert header[124:136] == b"\x80" + (8 << 30).to_bytes(11, "big")
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == 8 << 30


@pytest.mark.parametrize("name", ["", "/etc/passwd", "a/../b", "..", "a\0b", "x" * 70000])
def test_a_name_that_must_not_stand_in_an_archive_is_refused(name):
    with pytest.raises(VmbackupError) as refused:
        gnu_header(name, 0, mtime=0, mode=0)
    assert refused.value.code == "archive_name_invalid"


@given(st.binary(max_size=3000))
def test_the_parser_ends_on_any_bytes(data):
    padded = data + bytes(-len(data) % 512)
    try:
        for _entry in tar_entries(
            lambda start, length: padded[start : start + length].ljust(length, b"\0"), len(padded)
        ):
            pass
    except VmbackupError as error:
        assert error.code == "archive_structure_damaged"


@given(st.data())
def test_the_parser_ends_on_headers_that_were_tampered_with(data):
    info = tarfile.TarInfo("p" * 150)
    info.size = 10
    info.pax_headers = {"SCHILY.xattr.user.a": "b", "path": "p" * 150}
    stream = bytearray(info.tobuf(tarfile.PAX_FORMAT) + bytes(512))
    for _flip in range(data.draw(st.integers(0, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    for block in range(0, len(stream), 512):  # checksums that hold, so that what lies behind them is reached
        fresh = stream[block : block + 148] + b" " * 8 + stream[block + 156 : block + 512]
        if stream[block + 257 : block + 262] == b"ustar":
            stream[block + 148 : block + 156] = b"%06o\0 " % sum(fresh)
    try:
        names = [e.name for e in tar_entries(lambda start, length: bytes(stream[start : start + length]), len(stream))]
        assert len(names) <= 4
    except VmbackupError as error:
        assert error.code == "archive_structure_damaged"


def test_pax_sizes_and_names_win_over_the_header():
    info = tarfile.TarInfo("\u00e9" * 120)
    info.size = 9 << 30
    stream = info.tobuf(tarfile.PAX_FORMAT)
    (entry,) = tar_entries(lambda start, length: stream[start : start + length], len(stream))
    assert (entry.name, entry.size, entry.offset) == ("\u00e9" * 120, 9 << 30, len(stream))
