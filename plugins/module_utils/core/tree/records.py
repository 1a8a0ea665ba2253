# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One folder of a tree, as it was scanned and as it is kept.

Invariant: a kept record opens to exactly what was closed into it, or raises; its digest covers the folder's own row, the
names and the rows of its entries.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from typing import List, NamedTuple, Optional, Tuple

from ..errors import VmbackupError
from .entry import ROW_SIZE, Row, pack_row, unpack_rows

# Flags of a record.
PARTIAL = 1  # the folder holds more than the record: a mount point, a cache, unreadable, above a root, ...
HAS_LINKED = 2  # an entry is LINKED
HAS_RACY = 4  # an entry, or the folder itself, is RACY
ELSEWHERE = 8  # the folder is a mount point that was not entered; its own row has but mode and owner
UNSETTLED = 16  # the folder could not be reached when its turn came; its own row has but the type

_DIGEST_HEAD = struct.Struct("<II")
_LEVEL = 1


class Listing(NamedTuple):
    """A folder as scanned. names: joined by NUL, in order. rows: ROW_SIZE bytes each. size: of its files, in bytes."""

    path: bytes
    flags: int
    own: Row
    entry_count: int
    size: int
    names: bytes
    rows: bytes

    def digest(self) -> bytes:
        """Return what tells this folder from a changed one: 16 bytes."""
        content = hashlib.blake2b(_DIGEST_HEAD.pack(self.entry_count, len(self.names)), digest_size=16)
        content.update(pack_row(self.own) + self.names + self.rows)
        return content.digest()

    def entries(self) -> List[Tuple[bytes, Row]]:
        """Return names with rows, in order."""
        return list(zip(self.names.split(b"\0"), unpack_rows(self.rows))) if self.entry_count else []

    def close(self, known: Optional["Record"] = None) -> "Record":
        """Return the record to keep; `known`, a record of the same path, spares the compression if nothing changed."""
        digest = self.digest()
        if known is not None and known.digest == digest:
            payload = known.payload
        else:
            payload = zlib.compress(self.names + _planes(self.rows), _LEVEL)
        return Record(self.path, self.flags, self.own, self.entry_count, self.size, len(self.names), digest, payload)


class Record(NamedTuple):
    """A folder as kept: the payload is compressed."""

    path: bytes
    flags: int
    own: Row
    entry_count: int
    size: int
    names_length: int
    digest: bytes
    payload: bytes

    def open(self) -> Listing:
        """Return the listing; raises tree_index_damaged."""
        expected = self.names_length + self.entry_count * ROW_SIZE
        try:
            content = zlib.decompressobj().decompress(self.payload, expected + 1)
        except (zlib.error, OverflowError, MemoryError) as error:
            raise index_damaged("a folder's record cannot be inflated") from error
        names, planes = content[: self.names_length], content[self.names_length :]
        listing = Listing(
            self.path, self.flags, self.own, self.entry_count, self.size, names, _rows(planes, self.entry_count)
        )
        if len(content) != expected or listing.digest() != self.digest:
            raise index_damaged("a folder's record does not hold what its digest says")
        return listing


def index_damaged(why: str) -> VmbackupError:
    """Return the error of an index that is not what was written."""
    return VmbackupError(
        "tree_index_damaged",
        "the tree index is damaged: {}".format(why),
        "use the index of another backup of this machine, or make a full backup",
    )


def _planes(rows: bytes) -> bytes:
    """Return the first bytes of all rows, then all second ones, ...: they compress twice as fast, and better."""
    return b"".join(rows[place::ROW_SIZE] for place in range(ROW_SIZE))


def _rows(planes: bytes, count: int) -> bytes:
    return b"".join(planes[place::count] for place in range(count)) if len(planes) == count * ROW_SIZE else b""
