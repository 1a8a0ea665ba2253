# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open folders by a path of descriptors from "/", never through a symlink.

Invariant: at most KEPT descriptors are open, whatever the depth; one that was closed is opened again only if the way there
leads through the very same folders.
"""

from __future__ import annotations

import errno
import os
from typing import List, Tuple

KEPT = 32
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CLOSED = -1


class _Step:
    """One folder on the way. identity: device and inode."""

    __slots__ = ("name", "identity", "fd")

    def __init__(self, name: bytes, identity: Tuple[int, int], fd: int) -> None:
        self.name = name
        self.identity = identity
        self.fd = fd


class FolderUnreachable(OSError):
    """A folder cannot be opened. path: the topmost one on the way that cannot, below "/"."""

    def __init__(self, path: bytes, error: OSError) -> None:
        super().__init__(error.errno, error.strerror)
        self.path = path


class Folders:
    """The folders on the way to the one visited last; a context manager."""

    def __init__(self) -> None:
        self._steps: List[_Step] = []
        self._push(b"/", os.open(b"/", _FLAGS))

    def __enter__(self) -> "Folders":
        return self

    def __exit__(self, *_exception: object) -> None:
        for step in self._steps:
            self._shut(step)

    def open(self, path: bytes) -> int:
        """Return the descriptor of a folder, good until the next call; raises FolderUnreachable, ESTALE for a way that moved."""
        parts = path.split(b"/") if path else []
        shared = 0
        for step, part in zip(self._steps[1:], parts):
            if step.name != part:
                break
            shared += 1
        while len(self._steps) > shared + 1:
            self._shut(self._steps.pop())
        try:
            if self._steps[-1].fd == _CLOSED:
                self._reopen_or_shut()
            for part in parts[shared:]:
                shared += 1
                self._push(part, os.open(part, _FLAGS, dir_fd=self._steps[-1].fd))
        except OSError as error:
            raise FolderUnreachable(b"/".join(parts[:shared]), error) from error
        return self._steps[-1].fd

    def _push(self, name: bytes, fd: int) -> None:
        status = os.fstat(fd)
        self._steps.append(_Step(name, (status.st_dev, status.st_ino), fd))
        if len(self._steps) > KEPT:
            self._shut(self._steps[-1 - KEPT])

    def _reopen_or_shut(self) -> None:
        try:
            self._reopen()
        except OSError:
            for step in self._steps:
                self._shut(step)
            raise

    def _reopen(self) -> None:
        """Open the last step again, and those above it as far as descriptors are kept."""
        fd = os.open(b"/", _FLAGS)
        for number, step in enumerate(self._steps):
            if number:
                fd = self._follow(fd, step.name, keep=self._steps[number - 1].fd == fd)
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) != step.identity:
                os.close(fd)
                raise OSError(errno.ESTALE, "a folder on the way was moved")
            if number >= len(self._steps) - KEPT:
                step.fd = fd

    @staticmethod
    def _follow(parent: int, name: bytes, keep: bool) -> int:
        try:
            return os.open(name, _FLAGS, dir_fd=parent)
        finally:
            if not keep:
                os.close(parent)

    @staticmethod
    def _shut(step: _Step) -> None:
        if step.fd != _CLOSED:
            os.close(step.fd)
            step.fd = _CLOSED
