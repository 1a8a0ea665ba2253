# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The content of files that may change while they are read.

Invariant: a source delivers the bytes it promised, so that the tar stream stays valid; what the file did not have is told
(`short`), and is never left as the last word on that file.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from typing import Iterator, List, Tuple

from ..archive.tar_headers import padding
from ..errors import VmbackupError

SMALL = 8 << 20
_LEAST_HOLES = 64 << 10  # less than that is not worth a map
_LEAST_HOLE = 64 << 10
# GNU tar begins each range of a sparse file at a block of its own, bsdtar where the one before ended: aligned, both hold.
_ALIGNED = 4096
_BLOCK = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Ranges = List[Tuple[int, int]]


class LiveSource:
    """A file, or parts of it, as it is now. name: for messages. ranges: (start, end) of what is packed, after `head`."""

    parallel = True

    def __init__(self, fd: int, name: str, ranges: Ranges, head: bytes = b"") -> None:
        self._fd, self._name, self._head, self._ranges = fd, name, head, ranges
        self._starts = []  # of each range, in the packed content
        self.size = len(head)
        for start, end in ranges:
            self._starts.append(self.size)
            self.size += end - start
        self.short = False

    def data_ranges(self) -> Iterator[Tuple[int, int]]:
        """Yield the whole: holes were taken out before."""
        if self.size:
            yield 0, self.size

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view`; raises source_unreadable. Where the file has become shorter it is filled with zeros."""
        while view:
            if offset < len(self._head):
                taken = self._head[offset : offset + len(view)]
                view[: len(taken)] = taken
                count = len(taken)
            else:
                count = self._read(offset, view)
            offset, view = offset + count, view[count:]

    def _read(self, offset: int, view: memoryview) -> int:
        number = bisect_right(self._starts, offset) - 1
        start, end = self._ranges[number]
        at = start + offset - self._starts[number]
        wanted = view[: end - at]
        try:
            count = os.preadv(self._fd, [wanted], at)
        except OSError as error:
            raise unreadable(self._name, error) from error
        if count == 0:
            self.short = True
            wanted[:] = bytes(len(wanted))
            return len(wanted)
        return count


def open_file(name: bytes, folder: int) -> int:
    """Open a regular file to read it, without a trace in its access time where that may be; raises OSError."""
    try:
        return os.open(name, _READ | os.O_NOATIME, dir_fd=folder)
    except PermissionError:  # only its owner may leave no trace
        return os.open(name, _READ, dir_fd=folder)


def read_small(fd: int, size: int) -> bytes:
    """Return what a file holds, to its end or one byte beyond `size`, which tells that it grew. Raises OSError."""
    parts, at = [], 0
    while at <= size:
        part = os.pread(fd, size - at + 1, at)
        if not part:
            break
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def data_ranges(fd: int, size: int) -> Ranges:
    """Return where a file holds data: the whole of it, unless its holes are worth a map. Raises OSError."""
    ranges: Ranges = []
    for start, end in _seek_data(fd, size):
        start, end = start - start % _ALIGNED, min(size, end + -end % _ALIGNED)
        if ranges and start - ranges[-1][1] < _LEAST_HOLE:
            ranges[-1] = (ranges[-1][0], end)
        else:
            ranges.append((start, end))
    held = sum(end - start for start, end in ranges)
    return ranges if size - held >= _LEAST_HOLES else ([(0, size)] if size else [])


def sparse_map(ranges: Ranges, size: int) -> bytes:
    """Return the map that stands before the data of a sparse file, as GNU's format 1.0 has it."""
    entries = [*ranges, (size, size)] if not ranges or ranges[-1][1] < size else ranges
    text = b"%d\n" % len(entries) + b"".join(b"%d\n%d\n" % (start, end - start) for start, end in entries)
    return text + bytes(padding(len(text)))


def copy_to(fd: int, target: int, name: str) -> int:
    """Copy a file to its end into an empty one, and leave holes where it is zeros; return the bytes.

    name: for messages. Raises source_unreadable, and OSError for the target.
    """
    at = 0
    while True:
        try:
            block = os.pread(fd, _BLOCK, at)
        except OSError as error:
            raise unreadable(name, error) from error
        if not block:
            os.ftruncate(target, at)
            return at
        view = memoryview(block if block.count(0) < len(block) else b"")
        written = at
        while view:
            count = os.pwrite(target, view, written)
            written, view = written + count, view[count:]
        at += len(block)


def unreadable(name: str, error: OSError) -> VmbackupError:
    """Return the error for a file whose disk refuses a read midway: what was packed of it could not be taken back."""
    return VmbackupError(
        "source_unreadable",
        "{} cannot be read: {}".format(name, error.strerror or error),
        "check the guest's disk, or leave the file out by exclude (vmbackup_file_exclude)",
    )


def _seek_data(fd: int, size: int) -> Ranges:
    ranges: Ranges = []
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data behind `end`
                break
            return [(0, size)]  # the file system knows no holes
        if start >= end:
            break
        ranges.append((start, end))
    return ranges
