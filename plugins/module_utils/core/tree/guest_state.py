# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guest keeps between two backups of its files: the tree indexes, by the id of their backup.

  <root>/<vm>/lock                held while a backup is made or sent
  <root>/<vm>/pending/<id>.idx    of a backup that the store may not have yet
  <root>/<vm>/indexes/<id>.idx    promoted: of a backup that the store has committed
  <root>/<vm>/scratch/            of the run at hand

Invariants: an index is promoted only by who knows from the store that its backup is committed, and appears whole or not
at all; two runs on one guest never overlap.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Dict, Iterator, List

from ..errors import VmbackupError
from ..store.durable import fsync_file, make_folder, rename_durably
from ..store.names import folder_name, is_backup_id, parse_backup_id

_SUFFIX = ".idx"
_PENDING_KEPT = timedelta(days=8)  # a day longer than the store lets a late copy begin
_KEPT = {"full": 2, "incremental": 4}


class GuestState:
    """The state of one VM's guest. root: absolute; made when missing."""

    def __init__(self, root: str, vm: str) -> None:
        self._vm = vm
        self.path = Path(root) / folder_name(vm)
        self._indexes, self._pending = self.path / "indexes", self.path / "pending"
        self._scratch = self.path / "scratch"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the guest's lock; what a killed run left in scratch goes. Raises guest_busy, guest_state_unusable."""
        with _told(self.path):
            make_folder(str(self.path))
            fd = os.open(str(self.path / "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self._take(fd)
            self.sweep()
            yield
        finally:
            os.close(fd)

    def scratch(self) -> str:
        """Return the folder for what one run needs; the next run empties it. Raises guest_state_unusable."""
        with _told(self._scratch):
            make_folder(str(self._scratch))
        return str(self._scratch)

    def indexes(self) -> Dict[str, str]:
        """Return the path of every index, promoted or pending, by backup id."""
        return {**self.pending(), **_found(self._indexes)}

    def pending(self) -> Dict[str, str]:
        """Return the path of every index that waits for its backup's commit, by backup id."""
        return _found(self._pending)

    def keep_pending(self, backup_id: str, index: str) -> None:
        """Move a finished index out of scratch, to wait for its backup's commit. Raises guest_state_unusable."""
        parse_backup_id(backup_id)
        with _told(self._pending):
            make_folder(str(self._pending))
            fsync_file(index)
            rename_durably(index, str(self._pending / (backup_id + _SUFFIX)))

    def promote(self, backup_id: str, index: str) -> None:
        """Keep the index of a backup that the store has committed, and let go of old ones.

        index: its path: a pending one is moved, one elsewhere (in a staged backup) is copied. Raises guest_state_unusable.
        """
        target = self._indexes / (backup_id + _SUFFIX)
        with _told(self._indexes):
            make_folder(str(self._indexes))
            if Path(index).parent != self._pending:
                copy = Path(self.scratch()) / target.name
                shutil.copyfile(index, str(copy))
                index = str(copy)
            fsync_file(index)
            rename_durably(index, str(target))
            self._prune()

    def drop_pending(self, now: datetime) -> None:
        """Remove pending indexes of incrementals, and those of fulls that can no longer arrive. now: aware."""
        for backup_id, path in self.pending().items():
            known = parse_backup_id(backup_id)
            if known.kind == "incremental" or known.time < now - _PENDING_KEPT:
                _unlink(Path(path))

    def sweep(self) -> None:
        """Empty scratch."""
        shutil.rmtree(str(self._scratch), ignore_errors=True)

    def _prune(self) -> None:
        by_kind: Dict[str, List[str]] = {"full": [], "incremental": []}
        for backup_id in sorted(_found(self._indexes)):
            by_kind[parse_backup_id(backup_id).kind].append(backup_id)
        for kind, ids in by_kind.items():
            for backup_id in ids[: -_KEPT[kind]]:
                _unlink(self._indexes / (backup_id + _SUFFIX))

    def _take(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise VmbackupError(
                "guest_busy",
                "Another run (process {}) backs up the files of {} on this guest.".format(
                    os.pread(fd, 20, 0).decode("ascii", "replace") or "unknown", self._vm
                ),
                "Wait until it ends; a dead run's lock frees itself.",
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)


def _found(folder: Path) -> Dict[str, str]:
    paths = sorted(folder.glob("*" + _SUFFIX)) if folder.is_dir() else []
    return {path.stem: str(path) for path in paths if is_backup_id(path.stem)}


def _unlink(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        pass


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise VmbackupError(
            "guest_state_unusable",
            "{} cannot be used: {}.".format(error.filename or path, error.strerror or error),
            "Set state_dir (vmbackup_guest_state_dir) to a folder on the guest that the backup may write, with room there.",
        ) from error
