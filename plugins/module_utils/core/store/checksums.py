# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SHA256SUMS: written as sha256sum writes it, read strictly, compared with what is on the disk.

Invariant: a folder that passed `check_folder` holds plain regular files only, all of them named, all of them intact.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Callable, Dict, List, Mapping

from ..errors import VmbackupError
from .names import SUMS, plain_file_name

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_BLOCK = 1 << 20
_MOST_FILES = 16
_LARGEST_TEXT = 64 << 20


def sums_text(digests: Mapping[str, str]) -> bytes:
    """Return the bytes of SHA256SUMS for {name: hexadecimal digest}."""
    return "".join("{}  {}\n".format(digests[name], name) for name in sorted(digests)).encode()


def parse_sums(data: bytes) -> Dict[str, str]:
    """Return {name: digest}; raises backup_incomplete for anything but what sums_text writes."""
    matches = [_LINE.fullmatch(line) for line in data.decode("utf-8", "replace").splitlines()]
    sums = {plain_file_name(match.group(2)): match.group(1) for match in matches if match}
    if not sums or sums_text(sums) != data:
        raise VmbackupError("backup_incomplete", "{} is missing or malformed.".format(SUMS), "Send the backup again.")
    return sums


def file_sha256(path: Path, progress: Callable[[], object]) -> str:
    """Return the digest of a file as the disk will hold it: it is flushed first. progress: called once a MiB."""
    digest = hashlib.sha256()
    fd = os.open(str(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
        block = bytearray(_BLOCK)
        view = memoryview(block)
        offset = 0
        while True:
            count = os.preadv(fd, [block], offset)
            if count == 0:
                return digest.hexdigest()
            digest.update(view[:count])
            offset += count
            progress()
    finally:
        os.close(fd)


def read_text(path: Path) -> bytes:
    """Return the bytes of a small file of a backup; raises backup_incomplete, backup_foreign_file."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise VmbackupError(
            "backup_incomplete", "The backup has no {}.".format(path.name), "Send the backup again."
        ) from None
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_TEXT:
        raise _foreign(path.name)
    return path.read_bytes()


def list_files(folder: Path) -> Dict[str, int]:
    """Return {name: size} of a backup's folder; raises backup_foreign_file for links, folders and odd names."""
    entries: Dict[str, int] = {}
    for entry in sorted(folder.iterdir()):
        status = entry.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise _foreign(entry.name)
        entries[plain_file_name(entry.name)] = status.st_size
    if len(entries) > _MOST_FILES:
        raise VmbackupError("backup_foreign_file", "The backup has more than {} files.".format(_MOST_FILES))
    return entries


def damaged_files(folder: Path, sums: Mapping[str, str], progress: Callable[[], object]) -> List[str]:
    """Read every file again and return the names of those that differ; raises backup_incomplete, backup_foreign_file.

    Every file but SHA256SUMS itself must be named in it, and every name must be there.
    """
    there = set(list_files(folder)) - {SUMS}
    for name in sorted(there - set(sums)):
        raise _foreign(name)
    for name in sorted(set(sums) - there):
        raise VmbackupError("backup_incomplete", "The backup lacks {}.".format(name), "Send the backup again.")
    return [name for name in sorted(sums) if file_sha256(folder / name, progress) != sums[name]]


def _foreign(name: str) -> VmbackupError:
    return VmbackupError(
        "backup_foreign_file",
        "The backup holds {!r}, which is not one of its plain files.".format(name[:80]),
        "Remove what was put into the folder by hand.",
    )
