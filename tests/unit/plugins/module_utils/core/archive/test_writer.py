# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import io
import tarfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive import codecs
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.codecs import Codec, choose_codec
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.reader import ArchiveReader
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.sources import BytesSource
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.tar_headers import INDEX_NAME
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.writer import ArchiveWriter

from .conftest import MIB, noise, text


class Stream(BytesSource):
    """A source with one reader, at rising offsets."""

    parallel = False

    def __init__(self, data, ranges=None):
        super().__init__(data)
        self._ranges = ranges
        self._position = 0

    def data_ranges(self):
        return iter(self._ranges) if self._ranges is not None else super().data_ranges()

    def read_into(self, offset, view):
        assert offset >= self._position
        self._position = offset + len(view)
        super().read_into(offset, view)


def test_an_archive_holds_what_was_packed_as_a_plain_tar(archive, contents, gunzip):
    with tarfile.open(fileobj=io.BytesIO(gunzip(archive)), mode="r:") as tar:
        members = {member.name: member for member in tar.getmembers()}
        assert set(members) == set(contents) | {INDEX_NAME}
        for name, content in contents.items():
            assert tar.extractfile(members[name]).read() == content
            assert (members[name].mode, members[name].mtime, members[name].uid) == (0o600, 1700000000, 0)


def test_the_summary_describes_the_file(pack, contents, codec, gunzip):
    data, summary, files = pack(contents, codec)
    assert (summary.size, summary.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert summary.tar_size == len(gunzip(data))
    assert (summary.codec, summary.level) == (codec.name, codec.level)
    with ArchiveReader(io.BytesIO(data)) as reader:
        assert summary.members == reader.index.member_count
        assert [(f.name, f.size, f.digest.hex()) for f in reader.files] == [(f.name, f.size, f.digest) for f in files]
    assert files[0].sha256 == hashlib.sha256(contents["vm.vmx"]).hexdigest()


def test_every_member_starts_at_a_multiple_of_4_kib_and_disks_are_cut_on_whole_mebibytes(archive, contents):
    with ArchiveReader(io.BytesIO(archive)) as reader:
        record = next(f for f in reader.files if f.name == "vm-flat.vmdk")
        inside = []
        for number in range(reader.index.member_count):
            member = reader.index.member(number)
            assert member.offset % 4096 == 0
            if record.tar_offset <= member.tar_offset < record.tar_offset + record.size:
                inside.append(member)
        assert inside[0].tar_offset == record.tar_offset
        assert all((member.tar_offset - record.tar_offset) % MIB == 0 for member in inside)
        assert [member.flags for member in inside] == [0, 0, 0, 1, 0, 0]


def test_small_files_share_members(pack, codec):
    data, summary, _files = pack({"file{}".format(n): text(1000) for n in range(500)}, codec)
    assert summary.members == 1
    data, summary, _files = pack({"file{}".format(n): text(1000) for n in range(2000)}, codec)
    assert summary.members == 3
    with ArchiveReader(io.BytesIO(data)) as reader:
        reader.verify()
        assert {record.first_member for record in reader.files} == {0, 1, 2}


def test_runs_of_zeros_become_members_of_up_to_64_mib(pack, codec):
    for source in (bytes(130 * MIB + 5), Stream(bytes(130 * MIB + 5), [])):
        data, summary, _files = pack({"disk": source}, codec)
        assert summary.zero_members == 4
        assert len(data) < 400000
        with ArchiveReader(io.BytesIO(data)) as reader:
            sizes = [reader.index.member(n).tar_length for n in range(1, 5)]
            assert sizes == [64 * MIB, 64 * MIB, 2 * MIB, 5]
            reader.verify()


def test_the_archive_does_not_depend_on_threads_or_on_how_a_source_is_read(pack, disk, codec):
    one = pack({"a": disk}, codec, threads=1)[0]
    assert pack({"a": disk}, codec, threads=4)[0] == one
    assert pack({"a": Stream(disk)}, codec)[0] == one
    holes = [(0, 2 * MIB + MIB // 2), (5 * MIB + MIB // 2, len(disk))]
    assert pack({"a": Stream(disk, holes)}, codec)[0] == one


def test_the_tar_stream_before_the_index_is_the_same_for_any_codec(pack, contents, gunzip):
    streams = []
    for codec in (choose_codec(), Codec("zlib", 1), Codec("zlib", 9)):
        data = pack(contents, codec)[0]
        stream = gunzip(data)
        with ArchiveReader(io.BytesIO(data)) as reader:
            last = reader.index.member(reader.index.member_count - 1)
        streams.append(stream[: last.tar_offset + last.tar_length])
    assert streams[0] == streams[1] == streams[2]


def test_two_archives_of_an_image_share_the_members_that_did_not_change(pack, codec):
    before = text(MIB) + noise(20 * MIB) + bytes(9 * MIB) + noise(10 * MIB, 3)
    after = bytearray(before)
    after[5 * MIB + 77] ^= 1
    after[25 * MIB : 25 * MIB + 4] = b"new!"  # in the middle of the zeros
    first, second = (pack({"vm.vmx": text(300 + n), "disk": d}, codec)[0] for n, d in enumerate((before, bytes(after))))
    # Only places that are multiples of 4 KiB in both files count: what a file system can share.
    with ArchiveReader(io.BytesIO(first)) as old, ArchiveReader(io.BytesIO(second)) as new:
        known = {_aligned_member(first, old.index.member(n)) for n in range(old.index.member_count)}
        fresh = [n for n in range(new.index.member_count) if _aligned_member(second, new.index.member(n)) not in known]
        changed = [new.index.member(n).tar_offset for n in fresh]
    # The first member (headers), two changed chunks, and the runs of zeros around one of them.
    assert len(changed) <= 5
    assert sum(new.index.member(n).length for n in fresh) < 0.1 * len(second)


def _aligned_member(data, member):
    assert member.offset % 4096 == 0
    assert member.length % 4096 == 0
    return hashlib.sha256(data[member.offset : member.offset + member.length]).digest()


def test_an_entry_may_bring_its_own_header(tmp_path, gunzip):
    info = tarfile.TarInfo("caf\u00e9")
    info.size, info.uname, info.pax_headers = 5, "someone", {"SCHILY.xattr.user.tag": "v"}
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    sink = io.BytesIO()
    with ArchiveWriter(sink, codec=choose_codec(), scratch=str(tmp_path)) as writer:
        writer.add_entry("caf\u00e9", info.tobuf(tarfile.PAX_FORMAT), b"hello")
        writer.add_entry("folder", folder.tobuf(tarfile.PAX_FORMAT), b"")
        writer.close()
    with tarfile.open(fileobj=io.BytesIO(gunzip(sink.getvalue()))) as tar:
        member = tar.getmember("caf\u00e9")
        assert (member.uname, member.pax_headers["SCHILY.xattr.user.tag"]) == ("someone", "v")
        assert tar.getmember("folder").isdir()
    with ArchiveReader(io.BytesIO(sink.getvalue())) as reader:
        reader.verify()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 1200000), st.sampled_from(["text", "noise", "zero"])), max_size=6)
)
def test_any_mix_of_files_comes_back(pack, plan):
    make = {"text": text, "noise": noise, "zero": bytes}
    contents = {}
    for number, (small, size, kind) in enumerate(plan):
        content = make[kind](size // 13 if small else size)
        contents["f{}".format(number)] = content if small else Stream(content)
    data, _summary, _files = pack(contents, choose_codec())
    with ArchiveReader(io.BytesIO(data), check_digests=True) as reader:
        reader.verify()
        for name, content in contents.items():
            expected = content if isinstance(content, bytes) else content._data
            assert reader.open(name).read() == expected


def test_an_empty_archive_is_an_archive(pack, codec, gunzip):
    data = pack({}, codec)[0]
    with ArchiveReader(io.BytesIO(data)) as reader:
        assert reader.files == []
        reader.verify()
    with tarfile.open(fileobj=io.BytesIO(gunzip(data))) as tar:
        assert tar.getnames() == [INDEX_NAME]


@pytest.mark.skipif(choose_codec().name == "zlib", reason="isal is not installed here")
def test_isal_and_zlib_readers_agree(pack, contents, monkeypatch):
    data = pack(contents, Codec("isal", 1))[0]
    monkeypatch.setattr(codecs, "_isal", None)
    monkeypatch.setattr(codecs, "_inflate", zlib)
    with ArchiveReader(io.BytesIO(data)) as reader:
        reader.verify()
