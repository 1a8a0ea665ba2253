# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.index_entry import read_footer
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.reader import ArchiveReader
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.storage import Storage
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.walker import rebuild
from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError

from .conftest import MIB


def test_a_rebuilt_index_is_the_archives_own(archive):
    found = rebuild(io.BytesIO(archive))
    with ArchiveReader(io.BytesIO(archive)) as reader:
        own = [reader.index.member(n) for n in range(reader.index.member_count)]
        assert [found.index.member(n) for n in range(len(own))] == own
        assert found.index.files == reader.files
    assert found.problems == ()


def test_all_files_are_read_when_the_index_is_damaged(archive, contents):
    broken = bytearray(archive)
    broken[read_footer(Storage(io.BytesIO(archive))).index_offset + 100] ^= 1
    with pytest.raises(VmbackupError) as damaged:
        ArchiveReader(io.BytesIO(bytes(broken)))
    assert damaged.value.code == "archive_index_damaged"
    found = rebuild(io.BytesIO(bytes(broken)))
    with ArchiveReader(io.BytesIO(bytes(broken)), index=found.index) as reader:
        assert {record.name: reader.open(record.name).read() for record in reader.files} == contents


def test_a_cut_archive_yields_what_lies_before_the_cut_and_says_what_is_missing(archive, contents):
    with ArchiveReader(io.BytesIO(archive)) as reader:
        cut = reader.index.member(2).offset + 5000  # in the disk's second chunk
    found = rebuild(io.BytesIO(archive[:cut]))
    assert any("last 5000 bytes" in problem for problem in found.problems)
    assert any("vm-flat.vmdk" in problem for problem in found.problems)
    with ArchiveReader(io.BytesIO(archive[:cut]), index=found.index) as reader:
        assert reader.open("vm.vmx").read() == contents["vm.vmx"]
        disk = reader.open("vm-flat.vmdk")
        assert disk.size == len(contents["vm-flat.vmdk"])
        assert disk.read(MIB) == contents["vm-flat.vmdk"][:MIB]
        with pytest.raises(VmbackupError):
            disk.read(1)


@pytest.mark.parametrize("where", [0, 17, 30, 5000, -1])
def test_a_damaged_member_costs_only_itself(archive, contents, where):
    with ArchiveReader(io.BytesIO(archive)) as reader:
        member = reader.index.member(1)
    broken = bytearray(archive)
    broken[member.offset + where if where >= 0 else member.offset + member.length - 6] ^= 0x40
    found = rebuild(io.BytesIO(bytes(broken)))
    assert len(found.problems) == 2
    with ArchiveReader(io.BytesIO(bytes(broken)), index=found.index) as reader:
        for name in set(contents) - {"vm-flat.vmdk"}:
            assert reader.open(name).read() == contents[name]
        disk = reader.open("vm-flat.vmdk")
        with pytest.raises(VmbackupError):
            disk.read(10)
        disk.seek(MIB)
        assert disk.read() == contents["vm-flat.vmdk"][MIB:]


def test_a_damaged_header_of_the_tar_is_said(archive):
    broken = bytearray(archive)
    broken[4096 - 60] ^= 1  # in the first member's deflate stream, behind its padding
    problems = rebuild(io.BytesIO(bytes(broken))).problems
    assert any("cannot be told apart" in problem for problem in problems)
