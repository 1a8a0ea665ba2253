# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between two indexes: a merge of two streams, path by path.

Invariants: every entry that differs yields one change (one of another type: two); a deleted folder is one change, with
all below it; no more than one folder of each index is in memory, and the inodes of hard links that are saved.
"""

from __future__ import annotations

from typing import Dict, Iterator, List, Optional, Set, Tuple

from . import changes as words
from .changes import Change, ChangeSpill
from .entry import LINKED, RACY, TYPE_AND_MODE, Row
from .index import IndexReader, Totals
from .records import ELSEWHERE, HAS_LINKED, HAS_RACY, PARTIAL, UNSETTLED, Record
from .rules import ScanRules, ancestors, is_within, path_key

_Pair = Tuple[Optional[Record], Optional[Record]]
_FOLDER = 0o040000


def compare(
    old_index: Optional[str], new_index: str, rules: ScanRules, spill: ChangeSpill, links: ChangeSpill
) -> Totals:
    """Add all changes from one index to another to `spill`, what is merely linked to `links`; return the new one's totals.

    old_index, new_index: paths; without an old one everything is created. rules: the new scan's, they tell what was left out.
    In both, changes come in the order of scan_place; what was deleted may come late.
    Raises what IndexReader and ChangeSpill raise; both indexes are verified when it returns.
    """
    merge = _Comparison(rules, spill)
    totals = merge.run(old_index, new_index)
    if old_index is not None and merge.saved_links:
        _add_linked(old_index, new_index, merge.saved_links, links)
    return totals


class _Comparison:
    def __init__(self, rules: ScanRules, spill: ChangeSpill) -> None:
        self.saved_links: Set[int] = set()
        self._rules = rules
        self._above = {above for root in rules.roots for above in ancestors(root)}
        self._add = spill.add
        self._partial: List[bytes] = []  # PARTIAL folders on the way to the present one
        self._deleted: Optional[Change] = None

    def run(self, old_index: Optional[str], new_index: str) -> Totals:
        with IndexReader(new_index) as new:
            for before, now in _pairs_of(old_index, new):
                if now is None and before is not None:
                    self._deleted_folder(before)
                    continue
                self._end_deletion()
                if now is not None:
                    self._enter(now)
                    self._both(before, now)
            self._end_deletion()
            return new.totals or Totals(0, 0, 0)

    def _enter(self, record: Record) -> None:
        while self._partial and not is_within(record.path, self._partial[-1]):
            self._partial.pop()
        if record.flags & PARTIAL:
            self._partial.append(record.path)

    def _both(self, before: Optional[Record], now: Record) -> None:
        if before is None:
            self._add(Change(words.CREATED, now.path, words.NEW, 0, now.own.mode & TYPE_AND_MODE))
            self._entries(now.path, {}, _files(now))
        elif before.digest != now.digest or before.flags & HAS_RACY:
            self._own(before, now)
            self._entries(now.path, _files(before), _files(now))

    def _own(self, before: Record, now: Record) -> None:
        flags = now.flags | (ELSEWHERE if now.path in self._above else 0)  # what else is in it is none of ours
        reason = _folder_reason(before.own, now.own, flags)
        if reason:
            self._add(Change(words.METADATA, now.path, reason, 0, now.own.mode & TYPE_AND_MODE))

    def _entries(self, folder: bytes, before: Dict[bytes, Row], now: Dict[bytes, Row]) -> None:
        prefix = folder + b"/" if folder else b""
        for name in sorted(before.keys() | now.keys()):
            old, new = before.get(name), now.get(name)
            path = prefix + name
            if old is None and new is not None:
                self._save(words.CREATED, path, words.NEW, new)
            elif old is not None and new is None:
                self._add(Change(words.DELETED, path, self._why_gone(path, False), old.size, old.mode & TYPE_AND_MODE))
            elif old is not None and new is not None:
                self._differing(path, old, new)

    def _differing(self, path: bytes, old: Row, new: Row) -> None:
        if old.type() != new.type():
            self._add(Change(words.DELETED, path, words.TYPE, old.size, old.mode & TYPE_AND_MODE))
            self._save(words.CREATED, path, words.TYPE, new)
            return
        judged = judge(old, new)
        if judged:
            self._save(judged[0], path, judged[1], new)

    def _save(self, kind: str, path: bytes, reason: str, row: Row) -> None:
        if row.mode & LINKED:
            self.saved_links.add(row.ino)
        self._add(Change(kind, path, reason, row.size, row.mode & TYPE_AND_MODE))

    def _deleted_folder(self, record: Record) -> None:
        """Count a folder that is gone into the one that is gone above it."""
        gone = self._deleted
        if gone is None or not is_within(record.path, gone.path):
            self._end_deletion()
            why = self._why_gone(record.path, True)
            gone = Change(words.DELETED, record.path, why, 0, record.own.mode & TYPE_AND_MODE)
        self._deleted = gone._replace(entries=gone.entries + record.entry_count, size=gone.size + record.size)

    def _end_deletion(self) -> None:
        if self._deleted is not None:
            self._add(self._deleted)
            self._deleted = None

    def _why_gone(self, path: bytes, folder: bool) -> str:
        out = path.rpartition(b"/")[0] in self._partial or self._rules.leaves_out(path, folder)
        return words.LEFT_OUT_NOW if out else words.GONE


def judge(old: Row, new: Row) -> Optional[Tuple[str, str]]:
    """Return the kind and the reason of a change between two rows of one type that is no folder, None if there is none."""
    if old.size != new.size:
        return words.CHANGED, words.SIZE
    if old.mtime_ns != new.mtime_ns:
        return words.CHANGED, words.MTIME
    if old.ino != new.ino:
        return words.CHANGED, words.INODE
    if old.mode & RACY:
        return words.CHANGED, words.SAME_TICK
    if (old.mode ^ new.mode) & TYPE_AND_MODE:
        return words.METADATA, words.MODE
    if old.owner != new.owner:
        return words.METADATA, words.OWNER
    if old.ctime_ns != new.ctime_ns:
        return words.METADATA, words.CTIME
    return None


def _folder_reason(old: Row, new: Row, flags: int) -> str:
    if flags & UNSETTLED:
        return ""  # nothing is known of it
    if flags & ELSEWHERE:
        new = new._replace(mtime_ns=old.mtime_ns, ctime_ns=old.ctime_ns, ino=old.ino)
        old = old._replace(mode=old.mode & ~RACY)
    judged = judge(old, new)
    return judged[1] if judged else ""


def _add_linked(old_index: str, new_index: str, saved: Set[int], spill: ChangeSpill) -> None:
    """Go over both indexes once more, for unchanged names of files that are saved under another name."""
    with IndexReader(new_index) as new:
        for before, now in _pairs_of(old_index, new):
            if before is not None and now is not None and now.flags & HAS_LINKED:
                old_files = _files(before)
                prefix = now.path + b"/" if now.path else b""
                for name, row in _files(now).items():
                    old = old_files.get(name)
                    same = old is not None and old.type() == row.type() and judge(old, row) is None
                    if same and row.mode & LINKED and row.ino in saved:
                        spill.add(Change(words.LINKED, prefix + name, words.LINK, row.size, row.mode & TYPE_AND_MODE))


def _files(record: Record) -> Dict[bytes, Row]:
    """Return all entries but folders, which have records of their own."""
    return {name: row for name, row in record.open().entries() if row.type() != _FOLDER}


def _pairs_of(old_index: Optional[str], new: IndexReader) -> Iterator[_Pair]:
    if old_index is None:
        yield from ((None, record) for record in new)
        return
    with IndexReader(old_index) as old:
        yield from _pairs(iter(old), iter(new))


def _pairs(old: Iterator[Record], new: Iterator[Record]) -> Iterator[_Pair]:
    """Yield the records of both in order, those of one path together."""
    before, now = next(old, None), next(new, None)
    while before is not None or now is not None:
        first = min(path_key(record.path) for record in (before, now) if record is not None)
        old_here = before if before is not None and path_key(before.path) == first else None
        new_here = now if now is not None and path_key(now.path) == first else None
        yield old_here, new_here
        if old_here is not None:
            before = next(old, None)
        if new_here is not None:
            now = next(new, None)
