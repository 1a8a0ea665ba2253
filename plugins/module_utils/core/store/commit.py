# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commit: from a growing folder to a backup that is whole, verified and never changes.

Invariant: everything is on the disk before the rename out of .incoming, and the rename before the answer.
"""

from __future__ import annotations

import hashlib
import os
from datetime import datetime
from pathlib import Path
from typing import Callable, Mapping

from ..errors import VmbackupError
from .checksums import damaged_files, parse_sums, read_text
from .durable import fsync_folder, rename_durably
from .layout import VmFolder
from .lineage import check_lineage
from .manifest import Digest, Manifest, from_json
from .names import MANIFEST, RECOVER, SUMS
from .records import ARRIVED, Record, add_record


def check_committed(folder: VmFolder, backup_id: str, sums_sha256: str) -> bool:
    """Tell whether this very backup is committed; raises backup_id_taken when another one has its id."""
    committed = folder.committed(backup_id)
    if not committed.is_dir():
        return False
    if _sha256(committed / SUMS) != sums_sha256:
        raise VmbackupError(
            "backup_id_taken",
            "The store has another backup {} of {}.".format(backup_id, folder.vm),
            "Nothing was changed; make a new backup.",
        )
    fsync_folder(str(folder.path))  # who renamed it may have been killed before it flushed that
    return True


def verify_incoming(
    folder: VmFolder, backup_id: str, sums_sha256: str, adopt: bool, progress: Callable[[], object]
) -> Manifest:
    """Read a growing backup again as the disk has it, and return its manifest.

    A file that differs from its digest is removed, so that it is sent afresh. Raises backup_incomplete,
    backup_foreign_file, backup_damaged, and what check_lineage raises.
    """
    path = folder.incoming(backup_id)
    if _sha256(path / SUMS) != sums_sha256:
        (path / SUMS).unlink()
        raise _damaged(backup_id, SUMS)
    sums = parse_sums(read_text(path / SUMS))
    damaged = damaged_files(path, sums, progress)
    for name in damaged:
        (path / name).unlink()
    if damaged:
        raise _damaged(backup_id, ", ".join(damaged))
    manifest = from_json(read_text(path / MANIFEST))
    _check_manifest(manifest, backup_id, path, sums)
    check_lineage(folder, manifest, adopt)
    return manifest


def publish(folder: VmFolder, backup_id: str) -> Path:
    """Rename a verified, flushed backup out of .incoming: the commit. Returns its place; raises OSError."""
    fd = os.open(str(folder.incoming(backup_id) / SUMS), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    fsync_folder(str(folder.incoming(backup_id)))
    rename_durably(str(folder.incoming(backup_id)), str(folder.committed(backup_id)))
    return folder.committed(backup_id)


def stamp_arrival(folder: VmFolder, manifest: Manifest, now: datetime, key: str) -> None:
    """Record the arrival, just before publish: without its backup the record says nothing."""
    size = sum(entry.stat().st_size for entry in folder.incoming(manifest.id).iterdir())
    add_record(folder.records, Record(ARRIVED, manifest.id, now, key, {"bytes": size, "kind": manifest.kind}))


def _check_manifest(manifest: Manifest, backup_id: str, path: Path, sums: Mapping[str, str]) -> None:
    if manifest.id != backup_id:
        raise VmbackupError("backup_incomplete", "The manifest names {}, not {}.".format(manifest.id, backup_id))
    if RECOVER not in sums or MANIFEST not in sums:
        raise VmbackupError("backup_incomplete", "{} must name {} and {}.".format(SUMS, RECOVER, MANIFEST))
    for digest in (manifest.archive, manifest.tree_index):
        if digest is not None and not _stands(digest, path, sums):
            raise VmbackupError(
                "backup_incomplete",
                "{} is not as the manifest of {} says.".format(digest.name, backup_id),
                "Make a new backup.",
            )


def _stands(digest: Digest, path: Path, sums: Mapping[str, str]) -> bool:
    return sums.get(digest.name) == digest.sha256 and (path / digest.name).stat().st_size == digest.size


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_text(path)).hexdigest()


def _damaged(backup_id: str, names: str) -> VmbackupError:
    return VmbackupError(
        "backup_damaged",
        "{} of {} differs from its SHA-256 on the far side; it was not committed.".format(names, backup_id),
        "Copy again. If it fails again, the staged copy is damaged: check it with sha256sum -c, and make a new backup.",
    )
