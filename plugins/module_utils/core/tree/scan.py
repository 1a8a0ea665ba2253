# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The walk: one listing for each folder, from "/" down.

Invariants: listings come in the order of path_key; every subfolder that a listing names has a listing of its own; what
is not taken is counted (patterns) or noted (everything else). Never through a symlink.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Dict, Iterator, List, NamedTuple, Set, Tuple

from ..errors import VmbackupError
from .entry import COLUMNS, LINKED, RACY, RACY_WINDOW_NS, Row, folder_row, pack_rows
from .folders import Folders
from .left_out import LeftOutLog
from .markers import marker_of
from .mounts import PSEUDO, Mounts
from .records import ELSEWHERE, HAS_LINKED, HAS_RACY, PARTIAL, UNSETTLED, Listing, Record
from .rules import ScanRules, ancestors

_FOLDER = stat.S_IFDIR
_REGULAR = stat.S_IFREG
_TYPE = 0o170000
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)


class _Entries(NamedTuple):
    """What was found in a folder. numbers: its rows, one after another."""

    names: List[bytes]
    numbers: List[int]
    folders: List[bytes]
    flags: int


class Scanner:
    """Walk a tree by rules; a context manager."""

    def __init__(self, rules: ScanRules, started_ns: int, log: LeftOutLog) -> None:
        """started_ns: when the scan began, ns since 1970; what was changed 2 s before it or later is marked RACY."""
        self.excluded = 0
        self._rules = rules
        self._racy_from = started_ns - RACY_WINDOW_NS
        self._log = log
        self._mounts = Mounts()
        self._never = rules.own_folders()
        self._above: Set[bytes] = {folder for root in rules.roots for folder in ancestors(root)}
        self._asked_for = self._above | set(rules.roots)
        self._elsewhere: Dict[bytes, os.stat_result] = {}
        self._folders = Folders()

    def __enter__(self) -> "Scanner":
        return self

    def __exit__(self, *exception: object) -> None:
        self._folders.__exit__(*exception)

    def check_roots(self) -> None:
        """Raise scan_root_missing unless every root is a folder."""
        for root in self._rules.roots:
            try:
                self._folders.open(root)
            except OSError as error:
                raise VmbackupError(
                    "scan_root_missing",
                    "/{} is no folder that can be scanned: {}".format(os.fsdecode(root), error.strerror or error),
                    "correct `paths`; name the folder itself, not a symlink to it",
                ) from error

    def walk(self, path: bytes = b"") -> Iterator[Listing]:
        """Yield the listing of a folder, then those of all folders below it."""
        waiting = [path]
        while waiting:
            path = waiting.pop()
            listing, folders = self._visit(path)
            yield listing
            prefix = path + b"/" if path else b""
            waiting.extend(prefix + name for name in reversed(folders))

    def again(self, path: bytes) -> Listing:
        """Return the present listing of one folder."""
        return self._visit(path)[0]

    def is_stale(self, record: Record, first_look: bool) -> bool:
        """Tell whether a folder was changed since it was listed, or maybe in the very moment, at the first look."""
        if record.flags & UNSETTLED:
            return True
        if record.flags & ELSEWHERE or record.path in self._above:
            return False  # what is taken of them cannot move: nothing, and the roots, which are looked at themselves
        if first_look and record.own.mode & RACY:
            return True
        try:
            return folder_row(self._status(record.path), self._racy_from) != record.own
        except OSError:
            return True

    def _status(self, path: bytes) -> os.stat_result:
        """Return the status of what has this path; a symlink on the way leads to another inode and so is told."""
        try:
            return os.stat(b"/" + path, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return os.fstat(self._folders.open(path))

    def _visit(self, path: bytes) -> Tuple[Listing, List[bytes]]:
        self._log.forget(path)
        if path in self._elsewhere:
            return self._mount_point(path, self._elsewhere.pop(path)), []
        try:
            return self._list(path, self._folders.open(path))
        except OSError as error:
            return self._unreadable(path, error), []

    def _list(self, path: bytes, fd: int) -> Tuple[Listing, List[bytes]]:
        status = os.fstat(fd)
        own = folder_row(status, self._racy_from)
        # listdir of a descriptor gives text; its bytes are what the disk holds, and in their order all is sorted.
        joined = os.fsencode("\0".join(os.listdir(fd)))
        names = sorted(joined.split(b"\0")) if joined else []
        kept, partial = self._kept(fd, path, names, joined)
        found = self._stat_all(fd, path, kept, status.st_dev)
        flags = found.flags | partial | (HAS_RACY if own.mode & RACY else 0)
        joined = b"\0".join(found.names)
        size = sum(found.numbers[::COLUMNS])
        rows = pack_rows(found.numbers)
        return Listing(path, flags, own, len(found.names), size, joined, rows), found.folders

    def _stat_all(self, fd: int, path: bytes, names: List[bytes], device: int) -> _Entries:
        """The inner loop: it decides how long a scan takes."""
        numbers: List[int] = []
        folders: List[bytes] = []
        missing: Set[bytes] = set()
        flags = 0
        add = numbers.extend
        status_of = os.stat
        racy_from = self._racy_from
        for name in names:
            try:
                status = status_of(name, dir_fd=fd, follow_symlinks=False)
            except OSError as error:
                missing.add(name)
                flags |= self._missed(path, name, error)
                continue
            mode, ino, on_device, links, uid, gid, size, _atime, _mtime, _ctime = status
            kind = mode & _TYPE
            if kind == _FOLDER:
                folders.append(name)
                add((0, 0, 0, ino, _FOLDER, 0))
                if on_device != device:
                    self._crossed(path, name, status)
                continue
            changed = status.st_ctime_ns
            if links > 1:
                mode |= LINKED
                flags |= HAS_LINKED
            if changed >= racy_from:
                mode |= RACY
                flags |= HAS_RACY
            add((size if kind == _REGULAR else 0, status.st_mtime_ns, changed, ino, mode, uid << 32 | gid))
        if missing:
            names = [name for name in names if name not in missing]
        return _Entries(names, numbers, folders, flags)

    def _kept(self, fd: int, path: bytes, names: List[bytes], joined: bytes) -> Tuple[List[bytes], int]:
        """Return the names that the rules take, and PARTIAL where that is told by more than patterns."""
        prefix = path + b"/" if path else b""
        if path in self._above:
            return self._towards_roots(prefix, names), PARTIAL
        if path in self._never:
            names = [name for name in names if name not in self._never[path]]
        marker = marker_of(self._rules, fd, names)
        if marker is not None:
            self._log.add(path, marker.kind, "it holds {}".format(os.fsdecode(marker.name)))
            return [marker.name], PARTIAL
        if self._rules.patterns.may_match(path, joined):
            taken = [name for name in names if not self._matches(fd, prefix + name, name)]
            self.excluded += len(names) - len(taken)
            return taken, 0
        return names, 0

    def _towards_roots(self, prefix: bytes, names: List[bytes]) -> List[bytes]:
        there = set(names)
        for path in self._asked_for:
            parent, _slash, name = path.rpartition(b"/")
            if path and parent == prefix[:-1] and name not in there:
                self._log.add(path, "vanished", "it was there when the scan began")
        return [name for name in names if prefix + name in self._asked_for]

    def _matches(self, fd: int, path: bytes, name: bytes) -> bool:
        patterns = self._rules.patterns
        as_file, as_folder = patterns.matches(path, False), patterns.matches(path, True)
        if as_file == as_folder:
            return as_file
        try:
            mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
        except OSError:
            return False  # told when its row is read
        return as_folder if stat.S_ISDIR(mode) else as_file

    def _missed(self, folder: bytes, name: bytes, error: OSError) -> int:
        if error.errno in _GONE:
            return 0  # it was deleted, and its folder will be looked at again
        path = folder + b"/" + name if folder else name
        self._log.add(path, "unreadable", error.strerror or str(error))
        return PARTIAL

    def _crossed(self, folder: bytes, name: bytes, status: os.stat_result) -> None:
        """Note a folder on another file system, unless it is to be entered. It is not opened: that may mount something."""
        path = folder + b"/" + name if folder else name
        if path in self._asked_for:
            return
        pseudo = self._mounts.filesystem(status.st_dev) in PSEUDO
        if pseudo or not self._rules.cross_filesystems:
            self._elsewhere[path] = status

    def _mount_point(self, path: bytes, status: os.stat_result) -> Listing:
        filesystem = self._mounts.filesystem(status.st_dev)
        kind = "pseudo_filesystem" if filesystem in PSEUDO else "other_filesystem"
        self._log.add(path, kind, "{} is mounted here".format(os.fsdecode(filesystem) or "another file system"))
        # Its times and inode are those of what is mounted: new with each boot.
        own = folder_row(status, self._racy_from)._replace(mtime_ns=0, ctime_ns=0, ino=0, mode=status.st_mode)
        return _empty(path, own, PARTIAL | ELSEWHERE)

    def _unreadable(self, path: bytes, error: OSError) -> Listing:
        """Return an empty listing with what can be known of a folder that cannot be listed."""
        if error.errno not in _GONE:
            try:
                parent, _slash, name = path.rpartition(b"/")
                status = os.stat(name or b"/", dir_fd=self._folders.open(parent), follow_symlinks=False)
                self._log.add(path, "unreadable", error.strerror or str(error))
                return _empty(path, folder_row(status, self._racy_from), PARTIAL)
            except OSError as lost:
                error = lost
        self._log.add(path, "vanished", error.strerror or str(error))
        return _empty(path, Row(0, 0, 0, 0, _FOLDER, 0), PARTIAL | UNSETTLED)


def _empty(path: bytes, own: Row, flags: int) -> Listing:
    return Listing(path, flags | (HAS_RACY if own.mode & RACY else 0), own, 0, 0, b"", b"")
