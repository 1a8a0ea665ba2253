# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look again at folders that were changed while the tree was scanned, so that what moved meanwhile is not missed.

Invariant: after a pass that changed nothing, every folder of the index was, in the time of that pass, as the index says.
Indexes are rewritten as streams; a folder that did not change is copied as it stands.
"""

from __future__ import annotations

import heapq
import os
from typing import Dict, List, Optional, Set, Tuple

from .entry import TYPE_AND_MODE
from .index import IndexReader, IndexWriter
from .left_out import LeftOutLog
from .records import PARTIAL, UNSETTLED, Listing, Record
from .rules import is_within, path_key
from .scan import Scanner

ROUNDS = 3
_FOLDER = 0o040000
_TYPE = 0o170000


def settle(index: str, scanner: Scanner, log: LeftOutLog) -> None:
    """Bring an index up to date with what moved; folders that do not come to rest in 3 rounds are noted as moved.

    index: path; `index`.again is used meanwhile. Raises tree_write_failed, and what IndexReader raises.
    """
    for number in range(ROUNDS):
        first_look = number == 0
        with IndexReader(index) as reader:
            if not any(scanner.is_stale(record, first_look) for record in reader):
                return
        _rewrite(index, scanner, first_look)
    with IndexReader(index) as reader:
        for record in reader:
            if record.flags & (PARTIAL | UNSETTLED) != PARTIAL and scanner.is_stale(record, False):
                log.add(record.path, "moved", "it kept changing; what was moved into it meanwhile may be missed")


def _rewrite(index: str, scanner: Scanner, first_look: bool) -> None:
    again = index + ".again"
    with IndexReader(index) as reader, IndexWriter(again, reader.header) as writer:
        pass_over = _Pass(scanner, writer, first_look)
        for record in reader:
            pass_over.take(record)
        pass_over.finish()
        writer.finish()
    os.replace(again, index)


class _Pass:
    """One rewriting of an index, folder by folder."""

    def __init__(self, scanner: Scanner, writer: IndexWriter, first_look: bool) -> None:
        self._scanner = scanner
        self._writer = writer
        self._first_look = first_look
        self._new: List[Tuple[bytes, bytes]] = []  # a heap of keys and paths: folders to be scanned whole
        self._gone: Set[bytes] = set()
        self._leaving_out: Optional[bytes] = None

    def take(self, record: Record) -> None:
        """Write what now stands at this record's place, and before it."""
        self._scan_new(path_key(record.path))
        if self._leaving_out is not None and is_within(record.path, self._leaving_out):
            return
        self._leaving_out = None
        if record.path in self._gone:
            self._gone.discard(record.path)
            self._leaving_out = record.path
        elif self._scanner.is_stale(record, self._first_look):
            self._list_again(record)
        else:
            self._writer.add(record)

    def finish(self) -> None:
        """Write the new folders that come after the last old one."""
        self._scan_new(None)

    def _list_again(self, record: Record) -> None:
        listing = self._scanner.again(record.path)
        before, now = _subfolders(record.open()), _subfolders(listing)
        prefix = record.path + b"/" if record.path else b""
        self._gone.update(prefix + name for name, ino in before.items() if now.get(name) != ino)
        for name, ino in now.items():
            if before.get(name) != ino:
                heapq.heappush(self._new, (path_key(prefix + name), prefix + name))
        self._writer.add(listing.close(record))

    def _scan_new(self, up_to: Optional[bytes]) -> None:
        while self._new and (up_to is None or self._new[0][0] <= up_to):
            for listing in self._scanner.walk(heapq.heappop(self._new)[1]):
                self._writer.add(listing.close())


def _subfolders(listing: Listing) -> Dict[bytes, int]:
    return {name: row.ino for name, row in listing.entries() if row.mode & TYPE_AND_MODE & _TYPE == _FOLDER}
