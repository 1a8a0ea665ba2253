# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store's side of Phase II: the five verbs, under the rights of one key.

Invariant: nothing that a key sends reaches a path unchecked; bytes are appended at a file's end only, and become a
backup by commit only; no verb reads content, changes or deletes a backup.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Sequence, Tuple, Union

from ..errors import VmbackupError
from .accounts import Accounts
from .checksums import list_files
from .commit import check_committed, publish, stamp_arrival, verify_incoming
from .durable import make_folder, store_error
from .folder import INCOMING_KEPT, StoreTree
from .grants import Grant
from .layout import VmFolder
from .lineage import Standing, find_standing
from .names import parse_backup_id, plain_file_name
from .records import OWN_KINDS, Record, add_record, may_add
from .writer_lock import WriterLock

MAX_PUT = 4 << 20
_AHEAD = timedelta(hours=1)
_BEHIND = timedelta(days=7)


@dataclass(frozen=True)
class Incoming:
    """What the store has of a backup. state: absent, partial or committed. sizes: bytes by file, when partial."""

    state: str
    sizes: Dict[str, int] = field(default_factory=dict)


class Receiver:
    """One session. clock: returns the store's time, aware. progress: called often while a commit reads."""

    def __init__(
        self, root: str, grant: Grant, clock: Callable[[], datetime], progress: Callable[[], None] = lambda: None
    ) -> None:
        self._root = root
        self._grant = grant
        self._clock = clock
        self._progress = progress
        self._accounts = Accounts(root, grant)
        self._locks: Dict[Tuple[str, str], WriterLock] = {}

    def size(self, vm: str, backup_id: str) -> Incoming:
        """Return what is there; takes the writer's lock of a partial backup. Raises backup_in_use."""
        with self._at(vm, backup_id) as folder:
            if folder.committed(backup_id).is_dir():
                return Incoming("committed")
            if not folder.incoming(backup_id).is_dir():
                self._check_clock(backup_id)
                return Incoming("absent")
            self._hold(folder, backup_id)
            return Incoming("partial", list_files(folder.incoming(backup_id)))

    def put(self, vm: str, backup_id: str, file: str, offset: int, data: Union[bytes, memoryview]) -> None:
        """Append `data` at `offset`, which must be the file's size; raises put_out_of_order and what limits say."""
        plain_file_name(file)
        if len(data) > MAX_PUT:
            raise VmbackupError("put_too_large", "A put holds at most {} bytes.".format(MAX_PUT))
        with self._at(vm, backup_id) as folder:
            self._begin(folder, backup_id)
            self._accounts.charge(len(data))
            _append(str(folder.incoming(backup_id) / file), offset, memoryview(data))

    def commit(self, vm: str, backup_id: str, sums_sha256: str, adopt: bool = False) -> None:
        """Verify every byte on this side, then make the backup visible; success again for the same backup."""
        if adopt:
            self._grant.require_adopt()
        with self._at(vm, backup_id) as folder:
            if check_committed(folder, backup_id, sums_sha256):
                return
            if not folder.incoming(backup_id).is_dir():
                raise VmbackupError(
                    "backup_incomplete", "Nothing of {} has arrived.".format(backup_id), "Copy the backup again."
                )
            self._hold(folder, backup_id)

            def alive() -> None:
                self._hold(folder, backup_id)  # raises when another writer broke this one off
                self._progress()

            manifest = verify_incoming(folder, backup_id, sums_sha256, adopt, alive)
            alive()
            stamp_arrival(folder, manifest, self._clock(), self._grant.key)
            publish(folder, backup_id)
            self._locks.pop((vm, backup_id)).release(remove=True)
            self._accounts.recount()

    def note(self, vm: str, record: Mapping[str, Any]) -> None:
        """Add a record {kind, backup_id, body}; raises not_granted, record_invalid, records_full."""
        kind, backup_id, body = (record.get(name) for name in ("kind", "backup_id", "body"))
        if set(record) != {"kind", "backup_id", "body"} or not isinstance(kind, str) or not isinstance(body, dict):
            raise VmbackupError("record_invalid", "A record has kind, backup_id and body, and nothing else.")
        if backup_id is not None:
            parse_backup_id(backup_id)
        if kind in OWN_KINDS:
            raise VmbackupError("not_granted", "Records of the kind {} are the store's own.".format(kind))
        self._grant.require_vm(vm)
        self._grant.require_note(kind)
        folder = VmFolder(self._root, vm)
        with _told(str(folder.records)):
            if not may_add(folder.records, self._grant.key):
                raise VmbackupError(
                    "records_full",
                    "The key {} has filled the records of {}.".format(self._grant.key, vm),
                    "Prune them.",
                )
            add_record(folder.records, Record(kind, backup_id, self._clock(), self._grant.key, body))

    def tip(self, vm: str, ids: Sequence[str] = ()) -> Optional[Standing]:
        """Return where the VM's chain stands, and which of some ids are committed; raises not_granted."""
        self._grant.require_vm(vm)
        folder = VmFolder(self._root, vm)
        with _told(str(folder.path)):
            return find_standing(folder, ids)

    def close(self) -> None:
        """Give up every writer's lock; what is partial stays, to be gone on with."""
        for lock in self._locks.values():
            lock.release(remove=False)
        self._locks.clear()

    @contextmanager
    def _at(self, vm: str, backup_id: str) -> Iterator[VmFolder]:
        kind = parse_backup_id(backup_id).kind
        self._grant.require_vm(vm)
        self._grant.require_kind(kind)
        folder = VmFolder(self._root, vm)
        with _told(str(folder.path)):
            yield folder

    def _begin(self, folder: VmFolder, backup_id: str) -> None:
        """Hold a backup's lock and have its folder, from its first put on."""
        if (folder.vm, backup_id) in self._locks:
            self._hold(folder, backup_id)
            return
        if folder.committed(backup_id).is_dir():
            raise VmbackupError(
                "backup_id_taken", "The backup {} is committed; it cannot change.".format(backup_id), "Use a new id."
            )
        if not folder.incoming(backup_id).is_dir():
            self._check_clock(backup_id)
            StoreTree(self._root).sweep_incoming(folder.vm, INCOMING_KEPT)
        self._hold(folder, backup_id)
        make_folder(str(folder.incoming(backup_id)))

    def _hold(self, folder: VmFolder, backup_id: str) -> WriterLock:
        place = (folder.vm, backup_id)
        if place not in self._locks:
            self._locks[place] = WriterLock(folder.lock(backup_id), self._grant.key)
            self._accounts.recount()
        lock = self._locks[place]
        if not lock.still_held():
            raise VmbackupError(
                "backup_in_use",
                "Another writer took {} over while this one was silent.".format(backup_id),
                "Copy again.",
            )
        return lock

    def _check_clock(self, backup_id: str) -> None:
        """Refuse to begin a backup from another time; what is begun or committed is always answered."""
        time, now = parse_backup_id(backup_id).time, self._clock()
        if not now - _BEHIND <= time <= now + _AHEAD:
            raise VmbackupError(
                "backup_id_off_clock",
                "The id {} is too far from the store's clock ({:%Y-%m-%d %H:%M:%S %Z}).".format(backup_id, now),
                "Set the clocks of controller and store; a copy that is over 7 days late cannot be begun.",
            )


def _append(path: str, offset: int, view: memoryview) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        size = os.fstat(fd).st_size
        if offset != size:
            raise VmbackupError("put_out_of_order", "A put at byte {}, but the file ends at {}.".format(offset, size))
        while view:
            count = os.pwrite(fd, view, offset)
            offset, view = offset + count, view[count:]
    finally:
        os.close(fd)


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise store_error(error, path) from error
