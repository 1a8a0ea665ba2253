# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tree as a value: everything that a restore must bring back, so that two trees can be compared."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Dict, Tuple, Union

Picture = Dict[bytes, Tuple[Any, ...]]  # as Python 3.8 reads it, since tests of core use it too


def picture(root: Union[Path, bytes]) -> Picture:
    """Return what each path below `root` is, by its bytes: type, mode, owner, time, content, attributes, links."""
    found: Picture = {}
    links: dict[tuple[int, int], bytes] = {}
    for path in sorted(_below(os.fsencode(root))):
        status = os.lstat(path)
        name = os.path.relpath(path, os.fsencode(root))
        first = links.setdefault((status.st_dev, status.st_ino), name) if status.st_nlink > 1 else b""
        found[name] = (
            stat.S_IFMT(status.st_mode),
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_rdev,
            "" if stat.S_ISDIR(status.st_mode) else first,
            _content(path, status),
            _attributes(path),
        )
    return found


def differences(one: Picture, other: Picture) -> dict[bytes, tuple[Any, Any]]:
    """Return the paths that differ, with both sides."""
    return {
        path: (one.get(path), other.get(path)) for path in one.keys() | other.keys() if one.get(path) != other.get(path)
    }


def _below(root: bytes) -> Iterator[bytes]:
    yield root
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            yield os.path.join(folder, name)


def _content(path: bytes, status: os.stat_result) -> Any:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
            return status.st_size, digest.hexdigest()
    return None


def _attributes(path: bytes) -> tuple[tuple[str, bytes], ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
