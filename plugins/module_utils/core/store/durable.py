# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write so that it survives a power cut.

Invariant: when a function here returns, its effect is on the disk, not only in the page cache.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from ..errors import VmbackupError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def store_error(error: OSError, path: str) -> VmbackupError:
    """Return the error that a failed system call on `path` in the store means."""
    cause = error.strerror or type(error).__name__
    if error.errno in _FULL:
        return VmbackupError(
            "store_full", "No space is left for {}: {}.".format(path, cause), "Free space there, or prune old backups."
        )
    if error.errno in _REFUSED:
        return VmbackupError(
            "store_not_writable",
            "{} cannot be written: {}.".format(path, cause),
            "Let the store's user own the store's root folder and write there.",
        )
    return VmbackupError("store_io_failed", "{} failed: {}.".format(path, cause), "Check the store's disk and path.")


def fsync_file(path: str) -> None:
    """Flush a file's bytes to the disk; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_folder(path: str) -> None:
    """Flush a folder's entries to the disk; raises OSError. File systems that cannot (some network ones) are let be."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def write_durably(path: str, data: bytes, mode: int = 0o600) -> None:
    """Make a file appear whole or not at all; raises OSError."""
    target = Path(path)
    part = target.with_name(".part-{}".format(target.name))
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        rename_durably(str(part), path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise


def rename_durably(source: str, destination: str) -> None:
    """Rename within one file system and flush the folders on both ends; raises OSError."""
    Path(source).rename(destination)
    parents = {str(Path(source).parent), str(Path(destination).parent)}
    for parent in sorted(parents):
        fsync_folder(parent)


def make_folder(path: str) -> None:
    """Make a folder and its parents, each entry flushed, unless they exist; raises OSError."""
    folder = Path(path)
    if folder.is_dir():
        return
    make_folder(str(folder.parent))
    folder.mkdir(mode=0o700, exist_ok=True)
    fsync_folder(str(folder.parent))
