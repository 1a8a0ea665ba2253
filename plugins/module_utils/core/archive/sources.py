# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an archive is packed from, and what it is written to.

Invariant: a source either delivers exactly the bytes it promised, or raises.
"""

from __future__ import annotations

import errno
import os
from types import TracebackType
from typing import Iterator, Optional, Protocol, Tuple, Type, Union

from ..errors import VmbackupError


class Source(Protocol):
    """Content of known size.

    size: bytes, exact. parallel: read_into may be called from several threads at any offset; otherwise it is called by
    one thread, at rising offsets.
    """

    size: int
    parallel: bool

    def data_ranges(self) -> Iterator[Tuple[int, int]]:
        """Yield rising (start, end) that may hold data; the rest is known to be zeros."""

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes at `offset`, or raise VmbackupError."""


class Sink(Protocol):
    """Where an archive goes: `write` takes all of `data`, or raises."""

    def write(self, data: Union[bytes, memoryview]) -> object:
        """Append `data`."""


class BytesSource:
    """A source in memory."""

    parallel = True

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def data_ranges(self) -> Iterator[Tuple[int, int]]:
        """Yield the whole."""
        if self.size:
            yield 0, self.size

    def read_into(self, offset: int, view: memoryview) -> None:
        """Copy from memory."""
        view[:] = memoryview(self._data)[offset : offset + len(view)]


class FileSource:
    """A file or block device on Linux, read by position; holes of a file are not read."""

    parallel = True

    def __init__(self, path: str) -> None:
        """Open `path`; raises source_unreadable."""
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unreadable(error) from error
        self.size = os.lseek(self._fd, 0, os.SEEK_END)

    def __enter__(self) -> "FileSource":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; harmless when it is closed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def data_ranges(self) -> Iterator[Tuple[int, int]]:
        """Yield what SEEK_DATA and SEEK_HOLE name; the whole where the file system knows no holes."""
        end = 0
        while end < self.size:
            try:
                start = os.lseek(self._fd, end, os.SEEK_DATA)
                hole = os.lseek(self._fd, start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:  # no data behind `end`
                    return
                start, hole = end, self.size
            end = min(hole, self.size)
            if start < end:
                yield start, end
            else:
                return

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view`; raises short_read when the file has shrunk, source_unreadable when it cannot be read."""
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._fd, [view[done:]], offset + done)
            except OSError as error:
                raise self._unreadable(error) from error
            if count == 0:
                raise VmbackupError(
                    "short_read",
                    "{} ends at byte {}, {} were expected".format(self._path, offset + done, self.size),
                    "something shortened the file while it was read; repeat the backup",
                )
            done += count

    def _unreadable(self, error: OSError) -> VmbackupError:
        return VmbackupError("source_unreadable", "{} cannot be read: {}".format(self._path, error.strerror))
