# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive import sources
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.layout import pieces
from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError

from .conftest import MIB


def test_a_file_source_names_its_data_and_reads_it(tmp_path):
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.seek(5 * MIB)
        file.write(b"x" * 100)
        file.truncate(9 * MIB)
    with sources.FileSource(str(path)) as source:
        ranges = list(source.data_ranges())
        view = bytearray(200)
        source.read_into(5 * MIB - 50, memoryview(view))
        assert source.size == 9 * MIB
    assert any(start <= 5 * MIB and end >= 5 * MIB + 100 for start, end in ranges)
    assert view == bytes(50) + b"x" * 100 + bytes(50)


def test_a_file_system_without_holes_gives_the_whole_file(tmp_path, monkeypatch):
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 100)
    source = sources.FileSource(str(path))

    def refuse(*_args):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "lseek", refuse)
    assert list(source.data_ranges()) == [(0, 100)]
    source.close()


def test_a_file_that_shrank_is_a_short_read(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 100)
    with sources.FileSource(str(path)) as source:
        os.truncate(str(path), 60)
        with pytest.raises(VmbackupError) as short:
            source.read_into(0, memoryview(bytearray(100)))
    assert short.value.code == "short_read"
    assert "byte 60" in short.value.message


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(VmbackupError) as missing:
        sources.FileSource(str(tmp_path / "nothing"))
    assert missing.value.code == "source_unreadable"
    assert "nothing" in missing.value.message


class Ranged:
    parallel = True

    def __init__(self, size, ranges):
        self.size, self._ranges = size, ranges

    def data_ranges(self):
        return iter(self._ranges)


@pytest.mark.parametrize(
    ("size", "ranges"),
    [
        (0, []),
        (5 * MIB, []),
        (5 * MIB + 3, [(0, 5 * MIB + 3)]),
        (5 * MIB + 3, [(MIB + 5, MIB + 6), (MIB + 7, MIB + 9), (4 * MIB, 4 * MIB + 1)]),
        (3 * MIB + 7, [(3 * MIB + 6, 3 * MIB + 7)]),
        (2 * MIB, [(0, 1), (1, MIB + 1)]),
    ],
)
def test_pieces_cover_a_source_without_gaps_and_read_all_that_may_hold_data(size, ranges):
    position = 0
    cut = list(pieces(Ranged(size, ranges)))
    for piece in cut:
        assert piece.offset == position
        assert piece.offset % MIB == 0
        assert piece.zero or piece.length <= MIB
        position += piece.length
    assert position == size
    for start, end in ranges:
        assert not any(p.zero and p.offset < end and start < p.offset + p.length for p in cut)


@pytest.mark.parametrize("ranges", [[(5, 3)], [(5, 9), (2, 4)], [(0, 101)], [(3, 3)], [(-1, 5)]])
def test_ranges_that_make_no_sense_are_refused(ranges):
    with pytest.raises(VmbackupError) as refused:
        list(pieces(Ranged(100, ranges)))
    assert refused.value.code == "source_ranges_invalid"
