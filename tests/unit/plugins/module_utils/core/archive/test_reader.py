# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import random

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive import reader as reading
from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError

from .conftest import MIB, noise


def test_files_are_read_whole_and_at_random(archive, contents):
    chance = random.Random(4)
    with reading.ArchiveReader(io.BytesIO(archive), check_digests=True) as reader:
        for name, content in contents.items():
            file = reader.open(name)
            assert (file.read(), file.size, file.get_size()) == (content, len(content), len(content))
            for _turn in range(20):
                start, length = chance.randrange(len(content) + 5), chance.randrange(200000)
                assert file.seek(start) == file.tell() == start
                assert file.read(length) == content[start : start + length]


def test_a_file_object_behaves_as_one(archive, contents):
    with reading.ArchiveReader(io.BytesIO(archive)) as reader:
        file = reader.open("vm-flat.vmdk")
        disk = contents["vm-flat.vmdk"]
        assert file.seek(-10, io.SEEK_END) == len(disk) - 10
        assert file.read(1 << 50) == disk[-10:]
        assert file.read(1) == b""
        file.seek(5)
        assert file.seek(5, io.SEEK_CUR) == 10
        assert io.BufferedReader(file).read(100) == disk[10:110]
        with pytest.raises(ValueError, match="negative"):
            file.seek(-1)


def test_a_path_is_opened_and_closed(archive, tmp_path):
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(archive)
    with reading.ArchiveReader(str(path)) as reader:
        assert reader.open("vm.vmx").read(11) == b"displayName"
    with pytest.raises(VmbackupError):
        reader.open("vm-flat.vmdk").read(1)


def test_zeros_are_never_inflated_and_sixteen_members_are_kept(pack, codec, monkeypatch):
    data = noise(20 * MIB) + bytes(40 * MIB)
    inflated = []
    real = reading.inflate_member
    monkeypatch.setattr(reading, "inflate_member", lambda raw: inflated.append(raw.offset) or real(raw))
    with reading.ArchiveReader(io.BytesIO(pack({"disk": data}, codec)[0])) as reader:
        file = reader.open("disk")
        assert file.read() == data
        assert len(inflated) == 20
        file.seek(19 * MIB)
        file.read(100)
        assert len(inflated) == 20
        file.seek(0)
        file.read(100)
        assert len(inflated) == 21
        assert len(reader._cache) == reading.CACHED_MEMBERS


def test_a_file_that_is_not_there_is_named(archive):
    with reading.ArchiveReader(io.BytesIO(archive)) as reader, pytest.raises(VmbackupError) as missing:
        reader.open("nothing")
    assert missing.value.code == "archive_file_missing"


def test_an_archive_that_is_not_there_is_named(tmp_path):
    with pytest.raises(VmbackupError) as missing:
        reading.ArchiveReader(str(tmp_path / "nothing"))
    assert missing.value.code == "archive_unreadable"
