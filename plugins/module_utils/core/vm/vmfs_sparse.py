# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vmfsSparse ("COWD") extents, and a disk merged from a flat base and such deltas.

Invariants: every number in an extent is checked before it is used; memory does not grow with the disk's size.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import Iterator, NamedTuple, Protocol, Sequence, Tuple

from ..errors import VmbackupError

SECTOR = 512
_HEADER = struct.Struct("<4s8I")
_TABLE_ENTRIES = 4096
_PAGE = 4 * _TABLE_ENTRIES
_PAGES = 4  # a chunk of a disk needs the directory's and, at the smallest grain, two tables'
_LARGEST_GRAIN = 2048  # sectors
_HEADER_SECTORS = 4

_Numbers = Tuple[int, ...]


class ExtentReader(Protocol):
    """Random reads of one extent file. name: for messages. size: bytes."""

    name: str
    size: int

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes at `offset`, or raise VmbackupError."""


class Run(NamedTuple):
    """Bytes `start` to `end` of a disk. place: where they lie in the extent; 0: the delta does not hold them."""

    start: int
    end: int
    place: int


class Delta:
    """One COWD extent.

    Source: VMware, Virtual Disk Format 1.1, "ESX Server Sparse Extents"; VMDK3Header in block/vmdk.c of QEMU.
    """

    def __init__(self, extent: ExtentReader, capacity: int) -> None:
        """Read and check the header. capacity: bytes of the disk. Raises delta_invalid."""
        self._extent = extent
        self._pages: "OrderedDict[int, _Numbers]" = OrderedDict()
        if extent.size < _HEADER_SECTORS * SECTOR:
            raise self._invalid("it has only {} bytes".format(extent.size))
        head = bytearray(_HEADER.size)
        extent.read_into(0, memoryview(head))
        magic, version, _flags, sectors, grain, directory, entries, _free, _cylinders = _HEADER.unpack(head)
        if magic != b"COWD" or version != 1:
            raise self._invalid("it is no COWD extent of version 1")
        if sectors * SECTOR != capacity:
            raise self._invalid("it is for {} bytes, the disk has {}".format(sectors * SECTOR, capacity))
        if not 1 <= grain <= _LARGEST_GRAIN or grain & (grain - 1):
            raise self._invalid("its grains have {} sectors".format(grain))
        self._grain: int = grain * SECTOR
        self._directory: int = directory * SECTOR
        self._entries: int = entries
        self._capacity = capacity
        needed = -(-capacity // (self._grain * _TABLE_ENTRIES))
        if not needed <= entries <= needed + SECTOR // 4:
            raise self._invalid("its directory has {} entries, {} are needed".format(entries, needed))
        if directory < 1 or self._directory + 4 * entries > extent.size:
            raise self._invalid("its directory lies outside the file")

    def runs(self, start: int, end: int) -> Iterator[Run]:
        """Yield the runs that cover the bytes `start` to `end` of the disk, in order.

        Neighbours that lie side by side in the file are one run. Raises delta_invalid.
        """
        run = Run(start, start, 0)
        for piece in self._pieces(start, end):
            length = run.end - run.start
            if (piece.place == run.place + length) if piece.place and run.place else (piece.place == run.place):
                run = run._replace(end=piece.end)
                continue
            if length:
                yield run
            run = piece
        if run.end > run.start:
            yield run

    def copy(self, place: int, view: memoryview) -> None:
        """Fill `view` from the extent file."""
        self._extent.read_into(place, view)

    def _pieces(self, start: int, end: int) -> Iterator[Run]:
        """Yield the runs of each table."""
        reach = self._grain * _TABLE_ENTRIES
        while start < end:
            table = start // reach
            stop = min(end, (table + 1) * reach)
            sector = self._page(self._directory + _PAGE * (table // _TABLE_ENTRIES))[table % _TABLE_ENTRIES]
            if sector == 0:
                yield Run(start, stop, 0)
            else:
                where = self._checked(sector, _PAGE, "grain table {}".format(table))
                yield from self._in_table(self._page(where), table * reach, start, stop)
            start = stop

    def _in_table(self, numbers: _Numbers, base: int, start: int, stop: int) -> Iterator[Run]:
        """Yield the runs of the table whose grains begin at byte `base` of the disk."""
        grain, step = self._grain, self._grain // SECTOR
        first, last = (start - base) // grain, -(-(stop - base) // grain)
        at = first
        while at < last:
            number, next_at = numbers[at], at + 1
            expected, pace = (number + step, step) if number else (0, 0)
            while next_at < last and numbers[next_at] == expected:
                next_at += 1
                expected += pace
            held = (max(start, base + at * grain), min(stop, base + next_at * grain))
            yield Run(*held, self._place(number, base + at * grain, base + next_at * grain, held[0]))
            at = next_at

    def _place(self, number: int, start: int, end: int, wanted: int) -> int:
        """Return where byte `wanted` of the grains `start` to `end` lies, whose first one is at sector `number`."""
        if number == 0:
            return 0
        length = min(end, self._capacity) - start  # the disk may end within its last grain
        return self._checked(number, length, "the grain of byte {}".format(start)) + wanted - start

    def _page(self, offset: int) -> _Numbers:
        """Return up to one table's numbers that lie at `offset`."""
        if offset in self._pages:
            self._pages.move_to_end(offset)
            return self._pages[offset]
        data = bytearray(min(_PAGE, (self._extent.size - offset) // 4 * 4))
        self._extent.read_into(offset, memoryview(data))
        while len(self._pages) >= _PAGES:
            self._pages.popitem(last=False)
        numbers = struct.unpack("<{}I".format(len(data) // 4), data)
        self._pages[offset] = numbers
        return numbers

    def _checked(self, sector: int, length: int, what: str) -> int:
        place = sector * SECTOR
        if place < self._directory + 4 * self._entries or place + length > self._extent.size:
            raise self._invalid("{} lies at sector {}, outside the file's data".format(what, sector))
        return place

    def _invalid(self, cause: str) -> VmbackupError:
        return VmbackupError(
            "delta_invalid",
            "The snapshot extent {} is not valid: {}.".format(self._extent.name, cause),
            "Check the disk with `vmkfstools -x check` on the ESX host, or leave it out by exclude_disks.",
        )


class MergedDisk:
    """What a guest sees of a chain: a Source for the archive, read by one thread at rising offsets."""

    parallel = False

    def __init__(self, flat: ExtentReader, deltas: Sequence[ExtentReader], capacity: int) -> None:
        """Open a chain. deltas: the oldest first. capacity: bytes. Raises flat_size, delta_invalid."""
        if flat.size != capacity:
            raise VmbackupError(
                "flat_size",
                "The extent {} has {} bytes, the disk has {}.".format(flat.name, flat.size, capacity),
                "Check the disk with `vmkfstools -x check` on the ESX host, or leave it out by exclude_disks.",
            )
        self.size = capacity
        self._flat = flat
        self._deltas = [Delta(extent, capacity) for extent in deltas]

    def data_ranges(self) -> Iterator[Tuple[int, int]]:
        """Yield the whole: an extent that is read over a network tells nothing of its holes."""
        if self.size:
            yield 0, self.size

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with what the newest link that holds each grain says."""
        if offset < 0 or offset + len(view) > self.size:
            raise VmbackupError("short_read", "{} ends at byte {}".format(self._flat.name, self.size))
        self._fill(len(self._deltas), offset, view)

    def _fill(self, links: int, offset: int, view: memoryview) -> None:
        """Lay what the newest of the first `links` deltas holds over what the links below it say."""
        if links == 0:
            self._flat.read_into(offset, view)
            return
        delta = self._deltas[links - 1]
        runs = list(delta.runs(offset, offset + len(view)))
        below = [run for run in runs if not run.place]
        if below:  # in one piece: what is written over costs less than a request for each gap
            first, last = below[0].start - offset, below[-1].end - offset
            self._fill(links - 1, offset + first, view[first:last])
        for run in runs:
            if run.place:
                delta.copy(run.place, view[run.start - offset : run.end - offset])
