# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever happened to an archive, reading ends with the right bytes or with a VmbackupError."""

from __future__ import annotations

import gzip
import hashlib
import io
import resource
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive import index, members
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.codecs import Codec
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.reader import ArchiveReader
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.walker import rebuild
from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError

from .conftest import MIB, text


def read_everything(data, contents):
    """Read by every way there is; each ends with a VmbackupError or with the right bytes. Return whether verify passed."""
    try:
        found = rebuild(io.BytesIO(data))
        whole = not found.problems
        with ArchiveReader(io.BytesIO(data), index=found.index) as reader:
            for record in found.index.files:
                _read(reader, record.name, contents if whole else None)
    except VmbackupError as error:
        assert error.code
    try:
        with ArchiveReader(io.BytesIO(data), check_digests=True) as reader:
            for name in contents:
                _read(reader, name, contents)
            reader.verify(2)
            return True
    except VmbackupError as error:
        assert error.code
    return False


def _read(reader, name, contents):
    try:
        got = reader.open(name).read(4 * MIB)
    except VmbackupError as error:
        assert error.code
    else:
        assert contents is None or got == contents[name]


def test_an_intact_archive_passes(small_archive):
    assert read_everything(*small_archive)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_yields_wrong_bytes(small_archive, gunzip, data):
    archive, contents = small_archive
    broken = bytearray(archive)
    for _flip in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, len(broken) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    if read_everything(bytes(broken), contents) and broken != archive:
        assert gunzip(bytes(broken)) == gunzip(archive)  # a bit that means nothing, behind the end of a deflate stream


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_truncation_passes(small_archive, data):
    archive, contents = small_archive
    assert not read_everything(archive[: data.draw(st.integers(0, len(archive) - 1))], contents)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=9000))
def test_foreign_bytes_are_refused(data):
    for foreign in (data, gzip.compress(data), data + bytes(5000)):
        assert not read_everything(foreign, {"a": b""})
        with pytest.raises(VmbackupError) as refused:
            ArchiveReader(io.BytesIO(foreign))
        assert refused.value.code == "archive_index_damaged"
        with pytest.raises(VmbackupError) as refused:
            rebuild(io.BytesIO(foreign))
        assert refused.value.code == "not_an_archive"


def bomb(claimed, flags):
    """Return a member of 1.8 GiB of zeros in less than 2 MiB, that claims another length."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    mebibyte = stream.compress(bytes(MIB)) + stream.flush(zlib.Z_FULL_FLUSH)
    return members.frame((mebibyte * 1800, b"\x03\x00"), zlib.crc32(b""), claimed, flags)


def archive_of(member, tar_length, flags):
    record = index.MemberRecord(0, 0, len(member), tar_length, flags, bytes(32))
    files = [index.FileRecord("disk", 0, tar_length, 0, bytes(32))]
    return member, index.ArchiveIndex(index.pack_record(record), files, Codec("zlib", 1))


@pytest.mark.parametrize(("claimed", "flags"), [(MIB, 0), (5, 0), (64 * MIB, 1), (0xFFFFFFFF, 0), (0xFFFFFFFF, 1)])
def test_a_bomb_is_refused_without_inflating_it(claimed, flags):
    member, made = archive_of(bomb(claimed, flags), min(claimed, MIB), flags)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(VmbackupError) as refused:
        rebuild(io.BytesIO(member))
    assert refused.value.code == "not_an_archive"
    if not flags:  # a run of zeros is not inflated at all
        with ArchiveReader(io.BytesIO(member), index=made) as reader, pytest.raises(VmbackupError) as refused:
            reader.open("disk").read()
        assert refused.value.code == "archive_member_damaged"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 << 10


def test_an_index_that_lies_about_sizes_is_refused():
    member = members.pack_member(Codec("zlib", 1), text(1000))
    for tar_length, length in ((1 << 30, len(member)), (0, len(member)), (1000, 0xFFFFFFFF), (999, len(member))):
        record = index.MemberRecord(0, 0, length, tar_length, 0, bytes(32))
        made = index.ArchiveIndex(index.pack_record(record), [index.FileRecord("a", 0, 900, 0, b"")], Codec("zlib", 1))
        with ArchiveReader(io.BytesIO(member), index=made) as reader, pytest.raises(VmbackupError):
            reader.open("a").read()


def test_an_index_that_inflates_beyond_reason_is_refused():
    packed = members.pack_member(Codec("zlib", 9), bytes(MIB))
    footer = members.pack_footer(members.Footer(0, 20 * len(packed), 0, 20 * MIB))
    with pytest.raises(VmbackupError) as refused:
        ArchiveReader(io.BytesIO(packed * 20 + footer))
    assert refused.value.code == "archive_index_damaged"


def test_an_index_whose_checksum_holds_but_whose_tables_do_not_is_refused():
    for members_count, table in ((1 << 60, 0), (0, 5), (1, 0)):
        head = struct.pack("<8sIIQQQ8sI12x", b"VMBINDEX", 1, 60, members_count, 0, table, b"zlib", 1) + bytes(table)
        with pytest.raises(VmbackupError) as refused:
            index.ArchiveIndex.parse(head + hashlib.sha256(head).digest())
        assert refused.value.code == "archive_index_damaged"


def test_a_file_that_claims_to_be_huge_is_not_allocated():
    member = members.pack_member(Codec("zlib", 1), text(1000))
    record = index.MemberRecord(0, 0, len(member), 1000, 0, bytes(32))
    made = index.ArchiveIndex(index.pack_record(record), [index.FileRecord("a", 0, 1 << 62, 0, b"")], Codec("zlib", 1))
    with ArchiveReader(io.BytesIO(member), index=made) as reader, pytest.raises(VmbackupError) as refused:
        reader.open("a").read()
    assert refused.value.code == "archive_index_damaged"
