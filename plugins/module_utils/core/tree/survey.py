# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scan as a whole: rules and the last index in, a new index and the changes out.

Invariants: what the result counts is what the new index and the list of changes hold. The old index is only read; when
it is damaged the survey fails, and never takes everything for new.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import merge
from typing import Any, Dict, Iterator, Optional, Tuple

from .changes import KINDS, Change, ChangeSpill, read_changes, scan_place
from .diff import compare
from .index import IndexReader, IndexWriter, Totals, index_foreign
from .left_out import LeftOut, LeftOutLog
from .records import Listing, Record
from .rules import ScanRules, path_key
from .scan import Scanner
from .settle import settle

LINKS = ".links"


@dataclass(frozen=True)
class Survey:
    """What was found.

    counts: changes of each kind. folders, entries: of the new index. bytes_to_save: content of all that is to be saved.
    bytes_total: of all regular files. excluded: entries that patterns left out. left_out: at most 1,000, the number of
    the others is left_out_unlisted; left_out_counts: all of them by kind.
    """

    counts: Dict[str, int]
    folders: int
    entries: int
    bytes_to_save: int
    bytes_total: int
    excluded: int
    left_out: Tuple[LeftOut, ...]
    left_out_unlisted: int
    left_out_counts: Dict[str, int]
    spill: Optional[str]

    def changes(self) -> Iterator[Change]:
        """Yield the changes from the spill's files, in the order of scan_place; raises tree_changes_damaged."""
        if self.spill is None:
            return iter(())
        return merge(read_changes(self.spill), read_changes(self.spill + LINKS), key=scan_place)


def survey(
    rules: ScanRules,
    old_index: Optional[str],
    new_index: str,
    spill: str,
    info: Dict[str, Any],
    now_ns: int,
    baseline: bool = False,
) -> Survey:
    """Scan a tree, write its index and list what differs from the old one.

    old_index: path, None where there is none: then everything is created. new_index, spill: paths, replaced;
    `new_index`.again and `spill`.links stand beside them. info: goes into the index's header and holds `vm` and `backup_id`.
    now_ns: the guest's clock, ns since 1970. baseline: list no changes.
    Raises scan_root_missing, tree_write_failed, tree_index_unreadable, _damaged, _foreign, _version.
    """
    log = LeftOutLog()
    header = dict(info, scan_start_ns=now_ns, root="/", rules=rules.as_data())
    with Scanner(rules, now_ns, log) as scanner:
        scanner.check_roots()
        _scan(scanner, old_index, new_index, header)
        settle(new_index, scanner, log)
    totals, counts, to_save = _compare(rules, old_index, new_index, None if baseline else spill)
    return Survey(
        counts=counts,
        folders=totals.folders,
        entries=totals.entries,
        bytes_to_save=to_save,
        bytes_total=totals.size,
        excluded=scanner.excluded,
        left_out=tuple(log.listed()),
        left_out_unlisted=log.unlisted(),
        left_out_counts=log.by_kind,
        spill=None if baseline else spill,
    )


def _scan(scanner: Scanner, old_index: Optional[str], new_index: str, header: Dict[str, Any]) -> None:
    known = _Known(old_index, header)
    try:
        with IndexWriter(new_index, header) as writer:
            for listing in scanner.walk():
                writer.add(listing.close(known.record(listing)))
            writer.finish()
    finally:
        known.close()


def _compare(
    rules: ScanRules, old_index: Optional[str], new_index: str, spill: Optional[str]
) -> Tuple[Totals, Dict[str, int], int]:
    if spill is None:
        with IndexReader(new_index) as reader:
            for _record in reader:
                pass
            return reader.totals or Totals(0, 0, 0), dict.fromkeys(KINDS, 0), 0
    with ChangeSpill(spill) as changes, ChangeSpill(spill + LINKS) as linked:
        totals = compare(old_index, new_index, rules, changes, linked)
    counts = {kind: changes.counts[kind] + linked.counts[kind] for kind in KINDS}
    return totals, counts, changes.bytes_to_save + linked.bytes_to_save


class _Known:
    """The old index beside the scan: what did not change need not be compressed again."""

    def __init__(self, old_index: Optional[str], header: Dict[str, Any]) -> None:
        self._reader = IndexReader(old_index) if old_index is not None else None
        self._records: Iterator[Record] = iter(self._reader or ())
        self._next: Optional[Record] = None
        if self._reader is not None:
            _check_owner(self._reader, header)
            self._next = next(self._records, None)

    def record(self, listing: Listing) -> Optional[Record]:
        """Return the old record of a folder; listings come in order."""
        key = path_key(listing.path)
        while self._next is not None and path_key(self._next.path) < key:
            self._next = next(self._records, None)
        return self._next if self._next is not None and self._next.path == listing.path else None

    def close(self) -> None:
        """Close the old index."""
        if self._reader is not None:
            self._reader.__exit__()


def _check_owner(reader: IndexReader, header: Dict[str, Any]) -> None:
    if reader.header.get("vm") != header.get("vm"):
        reader.__exit__()
        raise index_foreign("the tree index is of {}, not of {}".format(reader.header.get("vm"), header.get("vm")))
