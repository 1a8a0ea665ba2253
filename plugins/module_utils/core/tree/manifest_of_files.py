# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an incremental says of itself.

Invariant: whatever it misses stands in `left_out` with its reason; names stand in it as they stand in the archive.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Dict, Iterator, List, Tuple

from ..archive.writer import ArchiveSummary
from ..store.manifest import FORMAT, Digest, LeftOut, Manifest, Phase
from ..store.names import ARCHIVE, parse_backup_id
from ..utc import utc_text
from .changes import DELETED, LEFT_OUT_NOW
from .pack import VANISHED, PackedTree
from .parent import Parent
from .survey import Survey

MOST_DELETED = 100_000
MOST_LEFT_OUT = 1_000


@dataclass(frozen=True)
class Packing:
    """One packing of a guest's files. started, ended: the guest's clock."""

    survey: Survey
    packed: PackedTree
    summary: ArchiveSummary
    index: Digest
    started: datetime
    ended: datetime


def manifest_of(backup_id: str, parent: Parent, packing: Packing, node: str, collection_version: str) -> Manifest:
    """Build the manifest of an incremental that was packed in full."""
    summary = packing.summary
    return Manifest(
        format=FORMAT,
        id=backup_id,
        kind="incremental",
        vm=parent.vm,
        parent=parent.id,
        base=parent.base,
        as_of=utc_text(parse_backup_id(backup_id).time),
        consistency="files",
        snapshot=None,
        transport="guest",
        codec=summary.codec,
        level=summary.level,
        files=(),
        archive=Digest(ARCHIVE, summary.size, summary.sha256),
        tree_index=packing.index,
        left_out=tuple(islice(_left_out(packing), MOST_LEFT_OUT)),
        phases=(
            Phase(
                name="files",
                node=node,
                start=utc_text(packing.started),
                end=utc_text(packing.ended),
                bytes_in=packing.packed.bytes_read,
                bytes_out=summary.size,
            ),
        ),
        collection_version=collection_version,
        changes=counts_of(packing.survey, packing.packed),
        deleted=tuple(islice(deleted_paths(packing.survey, packing.packed), MOST_DELETED)),
    )


def counts_of(survey: Survey, packed: PackedTree) -> Dict[str, Any]:
    """Return how much of what was found and saved."""
    return {
        **survey.counts,
        "entries": survey.entries,
        "files_saved": packed.files,
        "bytes_saved": packed.bytes_read,
        "missing": len(packed.missing),
        "unstable": len(packed.unstable),
    }


def deleted_paths(survey: Survey, packed: PackedTree) -> Iterator[str]:
    """Yield what was deleted, a folder with all below it as one name that ends in a slash.

    What is merely left out now (by a new pattern, or because it could not be read) may still be there: a restore must not
    take away what an earlier backup holds of it. What vanished after the scan is in no index, so no later backup could list it.
    """
    for change in survey.changes():
        if change.kind == DELETED and change.reason != LEFT_OUT_NOW:
            yield name_of(change.path) + ("/" if change.is_folder else "")
    for note in packed.missing:
        if note.kind == VANISHED:
            yield name_of(note.path)


def name_of(path: bytes) -> str:
    """Return a path as manifests and archives spell it; bytes that are not UTF-8 are kept by surrogates."""
    return path.decode("utf-8", "surrogateescape")


def _left_out(packing: Packing) -> Iterator[LeftOut]:
    found: List[Tuple[Any, str, str]] = [
        *((each.path, each.kind, each.reason) for each in packing.packed.missing),
        *((each.path, "unstable", each.reason) for each in packing.packed.unstable),
        *((each.what, each.kind, each.reason) for each in packing.survey.left_out),
    ]
    for path, kind, reason in found:
        yield LeftOut(name_of(path), kind, reason)
