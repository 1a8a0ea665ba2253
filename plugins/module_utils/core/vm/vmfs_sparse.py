# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vmfsSparse ("COWD") extents, and a disk merged from a flat base and such deltas.

Invariants: every number in an extent is checked before it is used; memory does not grow with the disk's size.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import Iterator, Protocol, Sequence, Tuple

from ..errors import VmbackupError

SECTOR = 512
_HEADER = struct.Struct("<4s8I")
_NUMBER = struct.Struct("<I")
_TABLE_ENTRIES = 4096
_PAGE = 4 * _TABLE_ENTRIES
_PAGES = 16
_BLOCK = 256 << 10
_BLOCKS = 16  # shared by all deltas of a disk
_LARGEST_GRAIN = 2048  # sectors
_HEADER_SECTORS = 4


class ExtentReader(Protocol):
    """Random reads of one extent file. name: for messages. size: bytes."""

    name: str
    size: int

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes at `offset`, or raise VmbackupError."""


class _Cache:
    """The last `limit` pieces of `length` bytes that were read from an extent."""

    def __init__(self, extent: ExtentReader, length: int, limit: int) -> None:
        self._extent = extent
        self._length = length
        self._limit = limit
        self._kept: "OrderedDict[int, bytearray]" = OrderedDict()

    def piece(self, offset: int) -> bytearray:
        """Return what lies at `offset`, up to the piece's length or the extent's end."""
        if offset in self._kept:
            self._kept.move_to_end(offset)
            return self._kept[offset]
        while len(self._kept) >= self._limit:
            self._kept.popitem(last=False)
        data = bytearray(min(self._length, self._extent.size - offset))
        self._extent.read_into(offset, memoryview(data))
        self._kept[offset] = data
        return data


class Delta:
    """One COWD extent.

    Source: VMware, Virtual Disk Format 1.1, "ESX Server Sparse Extents"; VMDK3Header in block/vmdk.c of QEMU.
    """

    def __init__(self, extent: ExtentReader, capacity: int, blocks: int = _BLOCKS) -> None:
        """Read and check the header. capacity: bytes of the disk. Raises delta_invalid."""
        self._extent = extent
        self._pages = _Cache(extent, _PAGE, _PAGES)
        self._blocks = _Cache(extent, _BLOCK, blocks)
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

    def runs(self, start: int, end: int) -> Iterator[Tuple[int, int, int]]:
        """Yield (start, end, place) for the bytes `start` to `end` of the disk; place 0: the delta does not hold them.

        Neighbours that lie side by side in the file are one run. Raises delta_invalid.
        """
        run_start, run_place = start, -1
        for at, place in self._grains(start, end):
            follows = place == run_place + (at - run_start) if run_place > 0 and place else place == run_place
            if not follows:
                if run_place >= 0:
                    yield run_start, at, run_place
                run_start, run_place = at, place
        if run_place >= 0:
            yield run_start, end, run_place

    def _grains(self, start: int, end: int) -> Iterator[Tuple[int, int]]:
        """Yield (offset, place) for each grain, or for a whole table where the delta has none."""
        reach = self._grain * _TABLE_ENTRIES
        at = start
        while at < end:
            table = at // reach
            where = self._number(self._directory, table)
            if where == 0:
                yield at, 0
                at = (table + 1) * reach
                continue
            where = self._checked(where, _PAGE, "grain table {}".format(table))
            stop = min(end, (table + 1) * reach)
            while at < stop:
                yield at, self._place(where, at)
                at = (at // self._grain + 1) * self._grain

    def copy(self, place: int, view: memoryview) -> None:
        """Fill `view` from the extent file."""
        done = 0
        while done < len(view):
            block, within = divmod(place + done, _BLOCK)
            data = self._blocks.piece(block * _BLOCK)
            part = memoryview(data)[within : within + len(view) - done]
            view[done : done + len(part)] = part
            done += len(part)

    def _place(self, table: int, offset: int) -> int:
        entry = offset // self._grain % _TABLE_ENTRIES
        grain = self._number(table, entry)
        if grain == 0:
            return 0
        last = self._capacity - offset // self._grain * self._grain  # the disk may end within its last grain
        return self._checked(grain, min(self._grain, last), "grain {}".format(entry)) + offset % self._grain

    def _number(self, base: int, index: int) -> int:
        page, within = divmod(index, _TABLE_ENTRIES)
        return int(_NUMBER.unpack_from(self._pages.piece(base + _PAGE * page), 4 * within)[0])

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
        blocks = max(1, _BLOCKS // max(1, len(deltas)))
        self.size = capacity
        self._flat = flat
        self._deltas = [Delta(extent, capacity, blocks) for extent in deltas]

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
        if links == 0:
            self._flat.read_into(offset, view)
            return
        delta = self._deltas[links - 1]
        for start, end, place in delta.runs(offset, offset + len(view)):
            part = view[start - offset : end - offset]
            if place:
                delta.copy(place, part)
            else:
                self._fill(links - 1, start, part)
