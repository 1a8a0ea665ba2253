# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a store can be asked for: the five verbs, whether it is a folder here or a host behind SSH.

Invariant: the far side is a Receiver in both cases, so both obey the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Callable, Dict, Mapping, Optional, Protocol, Sequence, Type, Union

from ..errors import VmbackupError
from .grants import Grant
from .lineage import Standing
from .receiver import Incoming, Receiver

RETRYABLE = frozenset(("store_unreachable", "store_link_lost"))


class StoreLink(Protocol):
    """A session with a store. Errors are the receiver's own codes, and those of the way to it.

    unacknowledged: bytes of puts that the far side has not confirmed yet; they are confirmed in order.
    """

    @property
    def unacknowledged(self) -> int:
        """Return the bytes that are under way."""

    def size(self, vm: str, backup_id: str) -> Incoming:
        """Ask what is there of a backup, and become its writer when it is partial."""

    def put(self, vm: str, backup_id: str, file: str, offset: int, data: Union[bytes, memoryview]) -> None:
        """Append at most MAX_PUT bytes at the file's end; may return before they are confirmed."""

    def settle(self) -> None:
        """Wait until every put is confirmed."""

    def commit(self, vm: str, backup_id: str, sums_sha256: str, adopt: bool = False) -> None:
        """Have the backup verified and made visible."""

    def note(self, vm: str, record: Mapping[str, Any]) -> None:
        """Add a record: {kind, backup_id, body}."""

    def tip(self, vm: str, ids: Sequence[str] = ()) -> Optional[Standing]:
        """Ask where a VM's chain stands, and which of some ids are committed; None when it has no backup."""

    def reconnect(self) -> None:
        """Start the session anew after the link broke."""

    def close(self) -> None:
        """End the session; harmless when repeated."""


@dataclass(frozen=True)
class StoreAddress:
    """Where a store is: a folder of this machine (path), or a host behind SSH (host).

    timeout: seconds without an answer after which the host, or a link to it, counts as lost.
    """

    host: str = ""
    port: int = 22
    user: str = "vmbackup"
    key_file: str = ""
    known_hosts: str = ""
    host_key: str = ""
    path: str = ""
    timeout: int = 45

    def __post_init__(self) -> None:
        if bool(self.host) == bool(self.path):
            raise VmbackupError(
                "store_address_invalid",
                "The store needs either a host or a path.",
                "Set store.host (vmbackup_store_host), or store.path (vmbackup_store_path) for a folder on the mover.",
            )
        if self.timeout < 1:
            raise VmbackupError(
                "store_address_invalid", "The store's timeout is at least 1 second.", "Set store.timeout."
            )
        if self.host.startswith("-") or self.user.startswith("-"):  # ssh would take it for an option
            raise VmbackupError("store_address_invalid", "The store's host and user cannot begin with a dash.")

    def __str__(self) -> str:
        return self.path or "{}@{}:{}".format(self.user, self.host, self.port)


class LocalLink:
    """A store that is a folder of this machine: the receiver's code without SSH."""

    unacknowledged = 0

    def __init__(
        self,
        root: str,
        grant: Optional[Grant] = None,
        clock: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        self._make: Callable[[], Receiver] = lambda: Receiver(root, grant or Grant.everything("local"), clock)
        self._receiver = self._make()

    def __enter__(self) -> LocalLink:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def size(self, vm: str, backup_id: str) -> Incoming:
        """As StoreLink."""
        return self._receiver.size(vm, backup_id)

    def put(self, vm: str, backup_id: str, file: str, offset: int, data: Union[bytes, memoryview]) -> None:
        """As StoreLink; confirmed when it returns."""
        self._receiver.put(vm, backup_id, file, offset, data)

    def settle(self) -> None:
        """Nothing is under way."""

    def commit(self, vm: str, backup_id: str, sums_sha256: str, adopt: bool = False) -> None:
        """As StoreLink."""
        self._receiver.commit(vm, backup_id, sums_sha256, adopt)

    def note(self, vm: str, record: Mapping[str, Any]) -> None:
        """As StoreLink."""
        self._receiver.note(vm, record)

    def tip(self, vm: str, ids: Sequence[str] = ()) -> Optional[Standing]:
        """As StoreLink."""
        return self._receiver.tip(vm, ids)

    def reconnect(self) -> None:
        """Start a new receiver."""
        self._receiver.close()
        self._receiver = self._make()

    def close(self) -> None:
        """Give up the writer's locks."""
        self._receiver.close()


def as_record(kind: str, backup_id: Optional[str], body: Dict[str, Any]) -> Dict[str, Any]:
    """Return a record as `note` takes it."""
    return {"kind": kind, "backup_id": backup_id, "body": body}
