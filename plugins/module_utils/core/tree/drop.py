# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take entries out of an index: those that packing found gone or unreadable.

Invariant: what is not in the index was not saved, so the next scan finds it new; nothing else changes.
"""

from __future__ import annotations

from typing import Dict, Iterable, Optional, Set

from .entry import COLUMNS, pack_rows
from .index import IndexReader, IndexWriter, Totals
from .records import Listing, Record
from .rules import is_within


def drop_entries(source_path: str, target_path: str, paths: Iterable[bytes]) -> Totals:
    """Write an index again without some entries; a folder goes with all below it. Return the new totals.

    paths: of files and folders; those that the index does not hold do nothing.
    Raises tree_write_failed, and what IndexReader raises.
    """
    unwanted = {path for path in paths if path}
    names = _by_folder(unwanted)
    leaving_out: Optional[bytes] = None
    with IndexReader(source_path) as reader, IndexWriter(target_path, reader.header) as writer:
        for record in reader:
            if leaving_out is not None and is_within(record.path, leaving_out):
                continue
            leaving_out = record.path if record.path in unwanted else None
            if leaving_out is None:
                writer.add(_without(record, names[record.path]) if record.path in names else record)
        return writer.finish()


def _by_folder(paths: Set[bytes]) -> Dict[bytes, Set[bytes]]:
    found: Dict[bytes, Set[bytes]] = {}
    for path in paths:
        folder, _slash, name = path.rpartition(b"/")
        found.setdefault(folder, set()).add(name)
    return found


def _without(record: Record, unwanted: Set[bytes]) -> Record:
    listing = record.open()
    kept = [(name, row) for name, row in listing.entries() if name not in unwanted]
    numbers = [number for name, row in kept for number in row]
    names = b"\0".join(name for name, row in kept)
    size = sum(numbers[::COLUMNS])
    return Listing(record.path, record.flags, record.own, len(kept), size, names, pack_rows(numbers)).close(record)
