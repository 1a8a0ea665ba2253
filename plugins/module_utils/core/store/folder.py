# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store, or a staging folder of the same layout, on this machine's disk.

Invariant: a backup is whole or absent for every reader; what grows is under .incoming and has one writer.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Callable, Iterator, List, Optional

from ..errors import VmbackupError
from .durable import make_folder, rename_durably, store_error
from .incoming import IncomingBackup
from .layout import VmFolder
from .lineage import committed_manifest
from .manifest import Manifest
from .names import parse_backup_id, vm_name
from .writer_lock import WriterLock

INCOMING_KEPT = 7 * 86400.0


@dataclass(frozen=True)
class StoredBackup:
    """A committed backup. manifest: None when it cannot be read; then problem says why."""

    id: str
    path: str
    manifest: Optional[Manifest]
    problem: str = ""


class StoreTree:
    """A store's root folder."""

    def __init__(self, root: str) -> None:
        self.root = root

    def incoming(self, vm: str, backup_id: str, *, adopt: bool = False, sweep: float = INCOMING_KEPT) -> IncomingBackup:
        """Begin a backup; a context manager that discards what was not committed.

        adopt: whether a VM with another instance UUID may take the folder over. sweep: seconds after which what other
        writers left is removed; in a staging folder 0 is right, since nothing goes on with an interrupted pack. Raises
        backup_in_use, backup_id_taken, backup_id_invalid, vm_name_invalid, store_full, store_not_writable,
        store_io_failed.
        """
        folder = VmFolder(self.root, vm)
        self.sweep_incoming(vm, sweep)
        if folder.committed(backup_id).exists():
            raise VmbackupError(
                "backup_id_taken", "There is a backup {} of {} already.".format(backup_id, vm), "Use a new id."
            )
        try:
            lock = WriterLock(folder.lock(backup_id), "local")
            make_folder(str(folder.incoming(backup_id)))
        except OSError as error:
            raise store_error(error, str(folder.incoming(backup_id))) from error
        return IncomingBackup(folder, backup_id, lock, adopt)

    def vms(self) -> List[str]:
        """Return the names of all VMs, sorted; folders that are not ours are passed over."""
        return sorted(_vm_names(Path(self.root)))

    def backups(self, vm: str) -> List[StoredBackup]:
        """Return a VM's committed backups by id; a damaged one is in the list, with its problem."""
        folder = VmFolder(self.root, vm)
        return [_stored(folder, name) for name in folder.committed_ids()]

    def remove(self, vm: str, backup_id: str) -> None:
        """Remove a committed backup from a staging folder: out of sight first, then its bytes; raises store_io_failed."""
        folder = VmFolder(self.root, vm)
        try:
            make_folder(str(folder.incoming_root))
            rename_durably(str(folder.committed(backup_id)), str(folder.incoming(backup_id)))
            shutil.rmtree(str(folder.incoming(backup_id)))
        except OSError as error:
            raise store_error(error, str(folder.committed(backup_id))) from error

    def sweep_incoming(self, vm: str, older_than: float, now: Callable[[], float] = time.time) -> List[str]:
        """Remove what grew for a VM, has no living writer, and was last written `older_than` seconds ago or before.

        Returns the ids. What is not ours is let be. Raises store_not_writable, store_io_failed.
        """
        folder = VmFolder(self.root, vm)
        try:
            return [name for name in folder.growing_ids() if _sweep(folder, name, now() - older_than)]
        except OSError as error:
            raise store_error(error, str(folder.incoming_root)) from error


def _sweep(folder: VmFolder, backup_id: str, before: float) -> bool:
    path, lock_path = folder.incoming(backup_id), folder.lock(backup_id)
    if _last_touched(path, lock_path) > before:
        return False
    try:
        lock = WriterLock(lock_path, "local", break_idle=False)
    except VmbackupError:  # its writer lives
        return False
    if path.is_dir():
        shutil.rmtree(str(path))
    lock.release(remove=True)
    return True


def _last_touched(path: Path, lock_path: Path) -> float:
    """Return when a growing backup or its lock was last written; infinity while another one changes it."""
    try:
        touched = [entry.stat().st_mtime for entry in (path, lock_path) if entry.exists()]
        touched += [entry.lstat().st_mtime for entry in path.iterdir()] if path.is_dir() else []
    except FileNotFoundError:
        return inf
    return max(touched, default=0.0)


def _stored(folder: VmFolder, backup_id: str) -> StoredBackup:
    path = str(folder.path / backup_id)
    try:
        parse_backup_id(backup_id)
        return StoredBackup(backup_id, path, committed_manifest(folder, backup_id))
    except VmbackupError as error:
        return StoredBackup(backup_id, path, None, error.message)


def _vm_names(root: Path) -> Iterator[str]:
    for entry in root.iterdir() if root.is_dir() else ():
        if not entry.name.startswith(".") and entry.is_dir():
            try:
                yield vm_name(entry.name)
            except VmbackupError:
                continue
