# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes of an archive by position, safe for several threads.

Invariant: no more is read than was asked for, and a read that ends early raises.
"""

from __future__ import annotations

import os
import threading
from typing import BinaryIO, Optional, Union

from ..errors import VmbackupError


class Storage:
    """An archive that can be read anywhere."""

    def __init__(self, archive: Union[str, "os.PathLike[str]", BinaryIO]) -> None:
        """archive: its path, or a binary file that can seek (left open by `close`). Raises archive_unreadable."""
        self._lock = threading.Lock()
        self._fd = -1
        self._file: Optional[BinaryIO] = None
        try:
            if isinstance(archive, (str, os.PathLike)):
                self._fd = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
                self.size = os.lseek(self._fd, 0, os.SEEK_END)
            else:
                self._file = archive
                self.size = archive.seek(0, os.SEEK_END)
        except OSError as error:
            raise _unreadable(error) from error

    def close(self) -> None:
        """Close the file if it was opened here; harmless when it was closed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes; raises archive_truncated where the archive ends before them."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise _truncated(offset, length, self.size)
        try:
            data = self._read(offset, length)
        except OSError as error:
            raise _unreadable(error) from error
        if len(data) != length:
            raise _truncated(offset, length, offset + len(data))
        return data

    def _read(self, offset: int, length: int) -> bytes:
        if self._file is None:
            return os.pread(self._fd, length, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(length)


def _unreadable(error: OSError) -> VmbackupError:
    return VmbackupError("archive_unreadable", "the archive cannot be read: {}".format(error.strerror or error))


def _truncated(offset: int, length: int, size: int) -> VmbackupError:
    return VmbackupError(
        "archive_truncated",
        "bytes {} to {} of the archive were wanted, it has {}".format(offset, offset + length, size),
        "copy the archive again, or rebuild its index from what is left",
    )
