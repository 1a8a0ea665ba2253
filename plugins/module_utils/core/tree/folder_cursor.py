# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reach files below a root by descriptors of their folders, never through a symlink.

Invariant: one descriptor is kept beside the root's, however deep the tree is; what was reached is below the root.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Optional, Type

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH = getattr(os, "O_PATH", 0) | _FOLDER
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FolderUnreachable(OSError):
    """A folder above a file cannot be opened. path: the topmost one that cannot."""

    def __init__(self, path: bytes, error: OSError) -> None:
        super().__init__(error.errno, error.strerror)
        self.path = path


class FolderCursor:
    """The folder at hand. root: absolute."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, _PATH & ~os.O_NOFOLLOW)
        self._path, self._fd = b"", os.dup(self._root)

    def __enter__(self) -> "FolderCursor":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        os.close(self._fd)
        os.close(self._root)

    def folder(self, path: bytes) -> int:
        """Return a descriptor of a folder, valid until the next call; raises FolderUnreachable.

        path: below the root. For dir_fd alone: it cannot be read.
        """
        if path == self._path:
            return self._fd
        below = self._path and path.startswith(self._path + b"/")
        at, rest = (self._path, path[len(self._path) + 1 :]) if below else (b"", path)
        fd = os.dup(self._fd if below else self._root)
        for name in rest.split(b"/") if rest else ():
            at = at + b"/" + name if at else name
            try:
                deeper = os.open(name, _PATH, dir_fd=fd)
            except OSError as error:
                raise FolderUnreachable(at, error) from error
            finally:
                os.close(fd)
            fd = deeper
        os.close(self._fd)
        self._path, self._fd = path, fd
        return fd


def open_file(name: bytes, folder: int) -> int:
    """Open a regular file to read it, without a trace in its access time where that may be; raises OSError."""
    try:
        return os.open(name, _FILE | os.O_NOATIME, dir_fd=folder)
    except PermissionError:  # only its owner may leave no trace
        return os.open(name, _FILE, dir_fd=folder)


def open_folder(name: bytes, folder: int) -> int:
    """Open a folder to read its attributes; raises OSError."""
    return os.open(name, _FOLDER, dir_fd=folder)
