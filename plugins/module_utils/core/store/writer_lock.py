# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One writer per backup: a locked file beside the growing folder.

Invariant: whoever may write holds the lock of the file that stands at the path now. A holder that was silent for
IDLE seconds (its link is dead, its server has not noticed) can be broken off: its file is replaced, and its next
`still_held` says no.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from ..errors import VmbackupError
from .durable import make_folder

IDLE = 60.0


class WriterLock:
    """The held lock. owner: the name of the key that writes, for the accounts of what is in flight."""

    def __init__(self, path: Path, owner: str, *, break_idle: bool = True) -> None:
        """Take the lock; raises backup_in_use when another writer is at work, OSError.

        break_idle: whether a holder that was silent for IDLE seconds is broken off.
        """
        self._break_idle = break_idle
        self._path = path
        self._fd = -1
        make_folder(str(path.parent))
        while self._fd < 0:
            self._take()
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, owner.encode(), 0)
        except OSError:  # a full disk
            self.release(remove=False)
            raise

    def _take(self) -> None:
        fd = os.open(str(self._path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._break_off(fd)
                return
            if _stands_at(self._path, fd):
                self._fd, fd = fd, -1
        finally:
            if fd >= 0:
                os.close(fd)

    def _break_off(self, fd: int) -> None:
        # The age is by the store's file system: both times come from one clock.
        if not self._break_idle or time.time() - os.fstat(fd).st_mtime < IDLE:
            raise VmbackupError(
                "backup_in_use",
                "Another writer is sending the backup {}.".format(self._path.stem),
                "Wait until it ends; a dead one is broken off after {:.0f} seconds.".format(IDLE),
            )
        if _stands_at(self._path, fd):
            self._path.unlink()

    def still_held(self) -> bool:
        """Tell whether the lock still counts, and mark that its writer is alive."""
        if self._fd < 0 or not _stands_at(self._path, self._fd):
            return False
        os.utime(self._fd)
        return True

    def release(self, remove: bool) -> None:
        """Give the lock up; harmless when repeated. remove: also the file, when the backup is no longer growing."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if remove and _stands_at(self._path, fd):
            self._path.unlink()
        os.close(fd)


def _stands_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False
