# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One incremental backup of a guest's files: look, scan, pack, commit.

Invariants: nothing is visible before all of it stands; the index that the backup holds names what the archives of its
chain hold; the guest's promoted indexes change only when the store has committed.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Callable, ContextManager, Optional, Tuple

from ..archive.codecs import choose_codec
from ..archive.writer import ArchiveSummary, ArchiveWriter
from ..store.manifest import Digest, Manifest
from ..store.names import ARCHIVE, TREE_INDEX
from .drop import drop_entries
from .guest_chain import GuestChain
from .manifest_of_files import Packing, manifest_of
from .pack import PackedTree, pack_changes
from .parent import Parent
from .rules import ScanRules
from .survey import Survey, survey

_BLOCK = 1 << 20


@dataclass(frozen=True)
class FilesOrder:
    """What to back up and how. now: returns the guest's time, aware. codec_level, threads: None: the engine's choice.

    streamed: the destination is the store itself; else it is the guest's staging folder.
    """

    backup_id: str
    rules: ScanRules
    differential: bool
    complete: bool
    streamed: bool
    codec: str
    codec_level: Optional[int]
    threads: Optional[int]
    node: str
    collection_version: str
    now: Callable[[], datetime]


@dataclass(frozen=True)
class FilesResult:
    """An incremental that was committed, to the staging folder or, streamed, to the store."""

    path: str
    manifest: Manifest
    parent: Parent
    survey: Survey
    packed: PackedTree


def make_incremental(
    chain: GuestChain, order: FilesOrder, open_destination: Callable[[], ContextManager[Any]]
) -> FilesResult:
    """Back up what changed since the parent that the chain gives.

    open_destination: opens a new, empty place for the backup. Raises full_due, guest_busy, and what scanning, packing and
    the store raise; then nothing is visible, and the next backup saves as much and more.
    """
    with chain.state.locked():
        position = chain.settle(chain.look(), order.now())
        parent = chain.parent(position, order.now(), differential=order.differential, complete=order.complete)
        with open_destination() as destination:
            return _make(chain, order, parent, destination)


def _make(chain: GuestChain, order: FilesOrder, parent: Parent, destination: Any) -> FilesResult:
    scratch = chain.state.scratch()
    index, started = os.path.join(scratch, TREE_INDEX), order.now()
    found = survey(
        order.rules,
        parent.index,
        index,
        os.path.join(scratch, "changes"),
        {"vm": chain.vm, "backup_id": order.backup_id},
        int(started.timestamp() * 1_000_000_000),
    )
    summary, packed = _pack(order, found, destination, scratch)
    if packed.missing:
        kept = os.path.join(scratch, "kept.idx")
        drop_entries(index, kept, [each.path for each in packed.missing])
        index = kept
    packing = Packing(found, packed, summary, _copy_index(index, destination), started, order.now())
    manifest = manifest_of(order.backup_id, parent, packing, order.node, order.collection_version)
    if order.streamed:
        chain.state.keep_pending(order.backup_id, index)
    place = destination.commit(manifest, verify=False)
    if order.streamed:
        chain.state.promote(order.backup_id, chain.state.pending()[order.backup_id])
    chain.drop_stale(parent)
    return FilesResult(place, manifest, parent, found, packed)


def _pack(order: FilesOrder, found: Survey, destination: Any, scratch: str) -> Tuple[ArchiveSummary, PackedTree]:
    sink = destination.sink(ARCHIVE)
    codec = choose_codec(order.codec, order.codec_level)
    with ArchiveWriter(sink, codec=codec, scratch=scratch, threads=order.threads) as writer:
        packed = pack_changes(found.changes(), writer, scratch=scratch)
        summary = writer.close()
    sink.close()
    return summary, packed


def _copy_index(index: str, destination: Any) -> Digest:
    """Copy the index into the backup, and return what the manifest says of it."""
    sink, digest, size = destination.sink(TREE_INDEX), hashlib.sha256(), 0
    with open(index, "rb") as file:
        block = file.read(_BLOCK)
        while block:
            digest.update(block)
            size += len(block)
            sink.write(block)
            block = file.read(_BLOCK)
    sink.close()
    return Digest(TREE_INDEX, size, digest.hexdigest())
