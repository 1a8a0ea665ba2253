# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a key has in the store and under way, and its limits.

Invariant: a put that would exceed a limit is refused before its bytes are written; other sessions of the key are
counted again after every RECOUNT bytes, so what parallel sessions can exceed is RECOUNT for each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

from ..errors import VmbackupError
from .folder import StoreTree
from .grants import EVERY_VM, Grant
from .layout import VmFolder
from .records import ARRIVED, read_records

RECOUNT = 64 << 20


class Accounts:
    """The running counts of one session."""

    def __init__(self, root: str, grant: Grant) -> None:
        self._root = root
        self._grant = grant
        self._in_flight = 0
        self._stored = 0
        self._since_count = RECOUNT

    def charge(self, size: int) -> None:
        """Count bytes that are about to be written; raises store_quota_exceeded, store_in_flight_exceeded."""
        grant = self._grant
        if not grant.quota_bytes and not grant.in_flight_bytes:
            return
        if self._since_count >= RECOUNT:
            self._count()
        for code_is_quota, limit, used in (
            (True, grant.quota_bytes, self._stored + self._in_flight),
            (False, grant.in_flight_bytes, self._in_flight),
        ):
            if limit and used + size > limit:
                raise self._exceeded(code_is_quota, limit)
        self._in_flight += size
        self._since_count += size

    def recount(self) -> None:
        """Count afresh before the next charge (after a commit or a new backup)."""
        self._since_count = RECOUNT

    def _count(self) -> None:
        folders = list(self._folders())
        self._in_flight = sum(self._under_way(folder) for folder in folders)
        self._stored = sum(self._arrived(folder) for folder in folders) if self._grant.quota_bytes else 0
        self._since_count = 0

    def _folders(self) -> Iterator[VmFolder]:
        if EVERY_VM not in self._grant.vms:
            yield from (VmFolder(self._root, vm) for vm in self._grant.vms)
            return
        yield from (VmFolder(self._root, vm) for vm in StoreTree(self._root).vms())

    def _under_way(self, folder: VmFolder) -> int:
        own = [each for each in folder.growing_ids() if _owner(folder.lock(each)) == self._grant.key]
        return sum(_size(folder.incoming(each)) for each in own)

    def _arrived(self, folder: VmFolder) -> int:
        standing = set(folder.committed_ids())
        sizes = {
            record.backup_id: int(record.body.get("bytes", 0))
            for record in read_records(folder.records, ARRIVED, self._grant.key)
            if record.backup_id in standing
        }
        return sum(sizes.values())

    def _exceeded(self, is_quota: bool, limit: int) -> VmbackupError:
        if is_quota:
            return VmbackupError(
                "store_quota_exceeded",
                "The key {} may keep {} bytes in the store, and they are used up.".format(self._grant.key, limit),
                "Prune its backups, or raise quota_bytes of the key in vmbackup_store_keys.",
            )
        return VmbackupError(
            "store_in_flight_exceeded",
            "The key {} may have {} bytes under way, and they are used up.".format(self._grant.key, limit),
            "Finish its unfinished copies (swept after 7 days), or raise in_flight_bytes in vmbackup_store_keys.",
        )


def _owner(lock: Path) -> str:
    """Return the key that writes; "" when its session has just ended."""
    try:
        return lock.read_text()
    except FileNotFoundError:
        return ""


def _size(folder: Path) -> int:
    """Return the bytes under way; 0 when another session has just committed them."""
    try:
        return sum(entry.lstat().st_size for entry in folder.iterdir())
    except FileNotFoundError:
        return 0
