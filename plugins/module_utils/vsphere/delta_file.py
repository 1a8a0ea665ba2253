# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The extent of a delta, read at random over a network.

Invariants: at most one request per MiB of the extent, and two more, however its grains lie; memory is bounded, and
disk space by the extent's size.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections import OrderedDict
from types import TracebackType
from typing import IO, Callable, Optional, Type

from ..core.errors import VmbackupError
from .datastore_file import DatastoreFile

BLOCK = 1 << 20  # a request costs about as much as the bytes of a block
_COPY = 4 << 20


class DeltaFile:
    """Reads blocks, until that has cost as much as a copy of all would have; then it copies all, once, and reads that.

    Grains that were written in order are met in order, and never need the copy; scattered ones need it soon. So the
    cost is at most twice the smaller one, with nothing known beforehand.
    """

    def __init__(self, open_file: Callable[[Optional[int], bool], DatastoreFile], scratch: str, blocks: int) -> None:
        """open_file: opens the extent, from its size (None: not known) and whether it is read from its start to its end.

        scratch: folder for the copy. blocks: how many are kept in memory.
        """
        self._open_file = open_file
        self._file = open_file(None, False)
        self._scratch = scratch
        self._limit = blocks
        self._kept: "OrderedDict[int, bytearray]" = OrderedDict()
        self._requests = 0
        self._copy: Optional[IO[bytes]] = None
        self.name = self._file.name
        self.size = self._file.size

    def __enter__(self) -> DeltaFile:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._file.close()
        if self._copy is not None:
            self._copy.close()

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes at `offset`; raises scratch_full, and the errors of DatastoreFile."""
        done = 0
        while done < len(view):
            if self._copy is not None:
                count = os.preadv(self._copy.fileno(), [view[done:]], offset + done)
                if not count:
                    raise VmbackupError("short_read", "The copy of {} in {} was cut".format(self.name, self._scratch))
                done += count
                continue
            number, within = divmod(offset + done, BLOCK)
            block = self._block(number)
            if block is not None:
                part = memoryview(block)[within : within + len(view) - done]
                view[done : done + len(part)] = part
                done += len(part)

    def _block(self, number: int) -> Optional[bytearray]:
        """Return a block; None when all was copied instead."""
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        if self._requests >= -(-self.size // BLOCK):
            self._kept.clear()
            self._file.close()
            self._copy = self._copied()
            return None
        self._requests += 1
        while len(self._kept) >= self._limit:
            self._kept.popitem(last=False)
        block = bytearray(min(BLOCK, self.size - number * BLOCK))
        self._file.read_into(number * BLOCK, memoryview(block))
        self._kept[number] = block
        return block

    def _copied(self) -> IO[bytes]:
        """Copy the extent into a file without a name, which goes with this process."""
        try:
            room = os.statvfs(self._scratch)
            if room.f_bavail * room.f_frsize < self.size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            copy: IO[bytes] = tempfile.TemporaryFile(dir=self._scratch, buffering=0)
        except OSError as error:
            raise self._full(error) from error
        try:
            with self._open_file(self.size, True) as file:
                self._transfer(file, copy.fileno())
        except OSError as error:
            copy.close()
            raise self._full(error) from error
        except BaseException:
            copy.close()
            raise
        return copy

    def _transfer(self, file: DatastoreFile, target: int) -> None:
        buffer = memoryview(bytearray(min(_COPY, self.size)))
        for at in range(0, self.size, _COPY):
            part = buffer[: min(_COPY, self.size - at)]
            file.read_into(at, part)
            while part:
                part = part[os.write(target, part) :]

    def _full(self, error: OSError) -> VmbackupError:
        return VmbackupError(
            "scratch_full",
            "The snapshot extent {} of {} MiB has its grains scattered and is copied to {} to be read, which failed: "
            "{}.".format(self.name, -(-self.size >> 20), self._scratch, error.strerror or error),
            "Free space there (with way streamed it is the folder that TMPDIR names), delete the VM's own snapshots, or "
            "leave the disk out by exclude_disks.",
        )
