# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send a finished backup folder to a store, and resume what broke.

Invariant: what the store has already is not sent again; success means that the store has committed it.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Optional

from ..errors import VmbackupError
from .checksums import damaged_files, list_files, parse_sums, read_text
from .link import StoreLink
from .names import SUMS
from .pacing import Patience, TokenBucket

PUT = 1 << 20


@dataclass(frozen=True)
class Sent:
    """What a copy did. resumed_from: bytes that were there when it began. already_there: it was committed before."""

    bytes_sent: int
    resumed_from: int
    seconds: float
    already_there: bool


class _Transfer:
    def __init__(self, link: StoreLink, folder: Path, vm: str, backup_id: str, bucket: TokenBucket) -> None:
        self.link, self.folder, self.vm, self.backup_id, self.bucket = link, folder, vm, backup_id, bucket
        self.files = _sending_order(list_files(folder))
        self.sent = 0
        self.resumed_from = -1
        self.already_there = False
        self._base = 0  # bytes that the store had when the attempt began
        self._sent_now = 0
        self._best = -1
        self._repeated = False

    def attempt(self, patience: Patience, adopt: bool) -> None:
        """Send what is missing and have it committed; raises what the link raises."""
        found = self.link.size(self.vm, self.backup_id)
        if self.resumed_from < 0:
            self.resumed_from = sum(found.sizes.values())
            self.already_there = found.state == "committed"
        self._base, self._sent_now = sum(found.sizes.values()), 0
        if found.state != "committed":
            for name, size in self.files.items():
                self._send_file(name, found.sizes.get(name, 0), size, patience)
            self.link.settle()
        sums = hashlib.sha256((self.folder / SUMS).read_bytes()).hexdigest()
        self.link.commit(self.vm, self.backup_id, sums, adopt)

    def may_repeat(self) -> bool:
        """Tell, after the store found damage, whether to send once more what it removed.

        Raises staged_backup_damaged when it is the staged copy that is damaged.
        """
        damaged = damaged_files(self.folder, parse_sums(read_text(self.folder / SUMS)), lambda: None)
        if damaged:
            raise VmbackupError(
                "staged_backup_damaged",
                "{} in the staged copy {} differs from its SHA-256; the store refused it.".format(
                    ", ".join(damaged), self.folder
                ),
                "Check the mover's disk and memory, remove that folder, and make a new backup.",
            )
        first, self._repeated, self._best = not self._repeated, True, -1
        return first

    def _send_file(self, name: str, offset: int, size: int, patience: Patience) -> None:
        if offset > size:
            raise VmbackupError(
                "store_has_more",
                "The store has {} bytes of {} in {}, here it has {}.".format(offset, name, self.backup_id, size),
                "The staged copy was changed; make a new backup.",
            )
        if size == 0:  # it must exist over there as well
            self.link.put(self.vm, self.backup_id, name, 0, b"")
        with (self.folder / name).open("rb", buffering=0) as file:
            file.seek(offset)
            while offset < size:
                data = file.read(min(PUT, size - offset))
                if not data:
                    raise VmbackupError("short_read", "{} became shorter while it was sent.".format(file.name))
                self.bucket.take(len(data))
                self.link.put(self.vm, self.backup_id, name, offset, data)
                offset += len(data)
                self.sent += len(data)
                self._sent_now += len(data)
                self._note_progress(patience)

    def _note_progress(self, patience: Patience) -> None:
        """Only what the store has more than ever before counts, so a store that forgets is not tried for ever."""
        confirmed = self._base + self._sent_now - self.link.unacknowledged
        if confirmed > self._best:
            self._best = confirmed
            patience.progress()


def send_backup(
    link: StoreLink,
    folder_path: str,
    vm: str,
    backup_id: str,
    *,
    rate_limit: Optional[int] = None,
    retry_for: float = 300.0,
    adopt: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Sent:
    """Send a backup's folder, resume after breaks, and return when the store has committed it.

    rate_limit: bytes/s. retry_for: seconds without progress for which a broken link is tried again. adopt: whether a VM
    with another instance UUID may take the folder over. Raises the store's codes and those of the way to it.
    """
    started = clock()
    patience = Patience(retry_for, clock, sleep)
    transfer = _Transfer(link, Path(folder_path), vm, backup_id, TokenBucket(rate_limit, clock, sleep))
    broken = False
    while True:
        try:
            if broken:
                link.reconnect()
            transfer.attempt(patience, adopt)
            return Sent(transfer.sent, transfer.resumed_from, clock() - started, transfer.already_there)
        except VmbackupError as error:
            if error.code == "backup_damaged" and transfer.may_repeat():
                continue
            patience.wait(error)
            broken = True


def _sending_order(sizes: Dict[str, int]) -> Dict[str, int]:
    """Put SHA256SUMS last: an incoming folder that lacks it is not complete."""
    return {name: sizes[name] for name in sorted(sizes, key=lambda name: (name == SUMS, name))}
