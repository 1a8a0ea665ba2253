# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an index knows of one entry: a row of six numbers.

Invariant: equal rows mean that nothing was changed since, as far as the file system tells; what it cannot tell (a write
within one tick of its clock) is marked RACY. Device numbers are not in rows: they do not survive a reboot.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from array import array
from typing import List, NamedTuple, Sequence

TYPE_AND_MODE = 0xFFFF
# Flags in the high bits of the mode.
LINKED = 1 << 16  # other names lead to the same file
RACY = 1 << 17  # changed so shortly before the scan, or during it, that the next comparison must differ
RACY_WINDOW_NS = 2 * 10**9

COLUMNS = 6
ROW_SIZE = 8 * COLUMNS
_ROW = struct.Struct("<{}q".format(COLUMNS))
_WRAP = 1 << 64


class Row(NamedTuple):
    """One entry. size: bytes of a regular file, else 0. mtime_ns, ctime_ns: ns since 1970. owner: uid << 32 | gid.

    mode: type, permissions, flags. Numbers beyond 64 bits (years after 2262) are wrapped: good to compare, not to read.
    The row of a folder within its parent's record has but type and inode.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    ino: int
    mode: int
    owner: int

    def type(self) -> int:
        """Return the type's bits of the mode."""
        return stat.S_IFMT(self.mode & TYPE_AND_MODE)


def folder_row(status: os.stat_result, racy_from_ns: int) -> Row:
    """Return a folder's own row; the size of a folder says nothing."""
    racy = RACY if status.st_ctime_ns >= racy_from_ns else 0
    owner = status.st_uid << 32 | status.st_gid
    return _wrapped(
        Row(0, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, (status.st_mode & TYPE_AND_MODE) | racy, owner)
    )


def pack_row(row: Row) -> bytes:
    """Return a row as ROW_SIZE bytes."""
    return _ROW.pack(*row)


def pack_rows(numbers: List[int]) -> bytes:
    """Return rows, given as one list of their numbers, as ROW_SIZE bytes each."""
    try:
        packed = array("q", numbers)
    except OverflowError:
        packed = array("q", map(_wrap, numbers))
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_rows(packed: bytes) -> List[Row]:
    """Return the rows that pack_rows packed."""
    return [Row(*numbers) for numbers in _ROW.iter_unpack(packed)]


def _wrapped(numbers: Sequence[int]) -> Row:
    return Row(*map(_wrap, numbers))


def _wrap(number: int) -> int:
    return (number + (_WRAP >> 1)) % _WRAP - (_WRAP >> 1)
