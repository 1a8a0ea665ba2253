# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file inside an archive, as a read-only file object.

Invariant: a read returns all bytes that were asked for up to the file's end, or raises.
"""

from __future__ import annotations

import io
from typing import Any, Callable

_PIECE = 1 << 24


class ArchivedContent(io.RawIOBase):
    """Bytes of a tar stream as a file: read, seek, tell, and get_size for libyal's readers."""

    def __init__(self, read_into: Callable[[int, memoryview], None], start: int, size: int) -> None:
        """read_into: fills a view from an offset of the tar stream. start, size: where the content lies there."""
        super().__init__()
        self.size = size
        self._read_into = read_into
        self._start = start
        self._position = 0

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def get_size(self) -> int:
        """Return the content's size in bytes."""
        return self.size

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; positions behind the end are allowed and read as empty. Raises ValueError for one before the start."""
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if position < 0:
            raise ValueError("negative seek position")
        self._position = position
        return position

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes, fewer only at the end; negative: the rest."""
        rest = max(0, self.size - self._position)
        wanted = rest if size is None or size < 0 else min(size, rest)
        pieces = []
        while wanted:  # piece by piece: what a damaged index claims is not allocated before it was found to be there
            piece = bytearray(min(wanted, _PIECE))
            wanted -= self.readinto(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def readall(self) -> bytes:
        """Return the rest."""
        return self.read()

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, less only at the end, and return how many bytes that were."""
        view = memoryview(buffer).cast("B")
        length = max(0, min(len(view), self.size - self._position))
        self._read_into(self._start + self._position, view[:length])
        self._position += length
        return length
