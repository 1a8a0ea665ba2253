# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import random
import struct
import tracemalloc
from typing import Dict, List, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.vmfs_sparse import Delta, MergedDisk


class Memory:
    """An extent in memory that counts its reads."""

    def __init__(self, data: bytes, name: str = "extent") -> None:
        self.data, self.name, self.size, self.reads = data, name, len(data), 0

    def read_into(self, offset: int, view: memoryview) -> None:
        self.reads += 1
        assert offset >= 0 and offset + len(view) <= self.size, "a read outside the file"
        view[:] = self.data[offset : offset + len(view)]


def cowd(sectors: int, grain: int, grains: Dict[int, bytes], seed: int = 0) -> bytes:
    """Make a COWD extent that holds `grains` (number to content), laid out in any order."""
    tables = -(-sectors // (grain * 4096))
    first = 4 + -(-tables * 4 // 512)
    body, directory, places = bytearray(), [0] * tables, {}  # type: Tuple[bytearray, List[int], Dict[int, List[int]]]
    order = list(grains)
    random.Random(seed).shuffle(order)
    for number in order:
        table = number // 4096
        if not directory[table]:
            directory[table] = first + len(body) // 512
            places[table] = [0] * 4096
            body += bytes(16384)
        places[table][number % 4096] = first + len(body) // 512
        body += grains[number].ljust(grain * 512, b"\0")
    for table, entries in places.items():
        at = (directory[table] - first) * 512
        body[at : at + 16384] = struct.pack("<4096I", *entries)
    head = struct.pack("<4s8I", b"COWD", 1, 3, sectors, grain, 4, tables, first + len(body) // 512, 0)
    listed = struct.pack("<{}I".format(tables), *directory)
    return head.ljust(2048, b"\0") + listed.ljust((first - 4) * 512, b"\0") + bytes(body)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_chain_reads_as_its_newest_writes(data: st.DataObject) -> None:
    sectors = data.draw(st.integers(1, 9000))
    generator = random.Random(data.draw(st.integers(0, 1 << 16)))
    model = bytearray(generator.randbytes(sectors * 512) if hasattr(generator, "randbytes") else bytes(sectors * 512))
    flat, deltas = Memory(bytes(model)), []
    for link in range(data.draw(st.integers(0, 4))):
        grain = data.draw(st.sampled_from([1, 2, 8, 128]))
        count = -(-sectors // grain)
        grains = {}
        for number in data.draw(st.sets(st.integers(0, count - 1), max_size=40)):
            content = bytes([generator.randrange(256)]) * min(grain * 512, (sectors - number * grain) * 512)
            grains[number] = content
            model[number * grain * 512 : number * grain * 512 + len(content)] = content
        deltas.append(Memory(cowd(sectors, grain, grains, link)))
    disk = MergedDisk(flat, deltas, sectors * 512)
    start = data.draw(st.integers(0, sectors * 512))
    view = bytearray(data.draw(st.integers(0, sectors * 512 - start)))
    disk.read_into(start, memoryview(view))
    assert view == model[start : start + len(view)]
    assert list(disk.data_ranges()) == [(0, disk.size)]


def test_neighbours_are_one_run_and_few_reads() -> None:
    extent = Memory(cowd(8192, 1, {}, 0))
    assert list(Delta(extent, 8192 * 512).runs(0, 8192 * 512)) == [(0, 8192 * 512, 0)]
    assert extent.reads == 2
    flat = Memory(bytes(8192 * 512))
    MergedDisk(flat, [extent], 8192 * 512).read_into(0, memoryview(bytearray(8192 * 512)))
    assert flat.reads == 1


def test_memory_does_not_grow_with_the_disk() -> None:
    sectors = 1 << 31  # 1 TiB, with a grain in every table of a part
    extent = Memory(cowd(sectors, 1, {number * 4096: b"x" * 512 for number in range(2000)}))
    tracemalloc.start()
    delta = Delta(extent, sectors * 512)
    view = memoryview(bytearray(512))
    for number in range(2000):
        ((_start, _end, place),) = delta.runs(number * 4096 * 512, number * 4096 * 512 + 512)
        delta.copy(place, view)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert bytes(view) == b"x" * 512
    assert peak < 8 << 20


GOOD = cowd(100, 1, {5: b"a" * 512, 6: b"b" * 512})


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 0), (4, 2), (12, 99), (16, 0), (16, 3), (16, 4096), (20, 0), (20, 1 << 30), (24, 0), (24, 500)],
)
def test_header_fields_are_checked(at: int, value: int) -> None:
    with pytest.raises(VmbackupError) as caught:
        Delta(Memory(GOOD[:at] + struct.pack("<I", value) + GOOD[at + 4 :], "[ds] a/a-delta.vmdk"), 100 * 512)
    assert caught.value.code == "delta_invalid"
    assert "[ds] a/a-delta.vmdk" in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(GOOD)))
def test_damaged_deltas_are_read_or_refused_but_never_beyond_the_file(
    noise: List[Tuple[int, int]], length: int
) -> None:
    data = bytearray(GOOD)
    for at, value in noise:
        data[at] = value
    try:
        disk = MergedDisk(Memory(bytes(100 * 512)), [Memory(bytes(data[:length]))], 100 * 512)
        disk.read_into(0, memoryview(bytearray(100 * 512)))
    except VmbackupError as error:
        assert error.code == "delta_invalid"


def test_a_flat_extent_of_another_size_is_refused() -> None:
    with pytest.raises(VmbackupError) as caught:
        MergedDisk(Memory(bytes(512)), [], 1024)
    assert caught.value.code == "flat_size"


def test_reading_beyond_the_end_is_refused() -> None:
    with pytest.raises(VmbackupError) as caught:
        MergedDisk(Memory(bytes(512)), [], 512).read_into(1, memoryview(bytearray(512)))
    assert caught.value.code == "short_read"
