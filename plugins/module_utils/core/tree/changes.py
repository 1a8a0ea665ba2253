# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of a tree, kept in a file as they are found.

Invariant: what was added is read back equal and in order, whatever bytes the paths hold; a cut file raises.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import BinaryIO, Dict, Iterator, NamedTuple, Tuple

from ..errors import VmbackupError
from .index import write_failed
from .rules import path_key

CREATED = "created"
CHANGED = "changed"  # the content may differ
METADATA = "metadata"  # only mode, owner or ctime differ, or it is a folder; a file's content is saved all the same,
# because ctime alone tells when someone wrote to it and set its mtime back
LINKED = "linked"  # unchanged, but it shares its content with a file that is saved: links stay links
DELETED = "deleted"
KINDS = (CREATED, CHANGED, METADATA, LINKED, DELETED)

NEW = "new"
TYPE = "type"
SIZE = "size"
MTIME = "mtime"
CTIME = "ctime"
INODE = "inode"
MODE = "mode"
OWNER = "owner"
SAME_TICK = "same tick as the last scan"
LINK = "link to a saved file"
GONE = "gone"
LEFT_OUT_NOW = "left out now"
REASONS = (NEW, TYPE, SIZE, MTIME, CTIME, INODE, MODE, OWNER, SAME_TICK, LINK, GONE, LEFT_OUT_NOW)

_END = 0xFF  # instead of a kind: the last frame; its size is the number of changes
_FRAME = struct.Struct("<BBHIQQ")
_BUFFER = 1 << 16


class Change(NamedTuple):
    """One path that differs.

    kind: one of KINDS. path: below "/", no leading slash. reason: one of REASONS. size: bytes of a regular file; of a
    deleted folder, of all files in it. mode: type and permissions. entries: how many a deleted folder had below it.
    """

    kind: str
    path: bytes
    reason: str
    size: int
    mode: int
    entries: int = 0

    @property
    def is_folder(self) -> bool:
        """Tell whether it is, or was, a folder."""
        return stat.S_ISDIR(self.mode)


class ChangeSpill:
    """Write changes to a file; a context manager that ends and closes it. Raises tree_write_failed."""

    def __init__(self, path: str) -> None:
        """path: is replaced."""
        self.counts: Dict[str, int] = dict.fromkeys(KINDS, 0)
        self.bytes_to_save = 0
        self._path = path
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self._file: BinaryIO = os.fdopen(fd, "wb", _BUFFER)
        except OSError as error:
            raise write_failed(path, error) from error

    def __enter__(self) -> "ChangeSpill":
        return self

    def __exit__(self, kind: object, *_rest: object) -> None:
        try:
            if kind is None:
                self._file.write(_FRAME.pack(_END, 0, 0, 0, sum(self.counts.values()), 0))
            self._file.close()
        except OSError as error:
            if kind is None:
                raise write_failed(self._path, error) from error

    def add(self, change: Change) -> None:
        """Append a change."""
        frame = _FRAME.pack(
            KINDS.index(change.kind),
            REASONS.index(change.reason),
            change.mode,
            len(change.path),
            change.size,
            change.entries,
        )
        self.counts[change.kind] += 1
        if change.kind != DELETED:
            self.bytes_to_save += change.size
        try:
            self._file.write(frame + change.path)
        except OSError as error:
            raise write_failed(self._path, error) from error


def scan_place(change: Change) -> Tuple[bytes, bool, bytes]:
    """Return what changes are ordered by: a folder, what is in it, then the folders below."""
    if change.is_folder:
        return path_key(change.path), False, b""
    folder, _slash, name = change.path.rpartition(b"/")
    return path_key(folder), True, name


def read_changes(path: str) -> Iterator[Change]:
    """Yield what a ChangeSpill wrote; raises tree_changes_damaged."""
    number = 0
    try:
        with open(path, "rb", _BUFFER) as spilled:
            frame = _FRAME.unpack(spilled.read(_FRAME.size))
            while frame[0] != _END:
                kind, reason, mode, length, size, entries = frame
                found = spilled.read(length)
                if len(found) != length:
                    raise _damaged(path, "it ends too early")
                yield Change(KINDS[kind], found, REASONS[reason], size, mode, entries)
                number += 1
                frame = _FRAME.unpack(spilled.read(_FRAME.size))
    except (OSError, struct.error, IndexError) as error:
        raise _damaged(path, str(error)) from error
    if frame[4] != number:
        raise _damaged(path, "it holds another number of changes than it says")


def _damaged(path: str, why: str) -> VmbackupError:
    return VmbackupError(
        "tree_changes_damaged", "the list of changes {} cannot be read: {}".format(path, why), "run the backup again"
    )
