# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our snapshot while disks are read under it: lease renewed, session kept alive, removed after the last byte.

Invariant: a snapshot that is no longer in the tree at the last byte means that the disks were merged under the
reader: what was read is not trusted.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Optional, Type

from ..core.errors import VmbackupError
from .renewal import LeaseKeeper
from .session import Session
from .snapshot_removal import Removal, remove_snapshot
from .snapshot_tree import OurSnapshot, find_snapshot, renew_lease


class HeldSnapshot:
    """Holds `snapshot` from enter to `release`; None for a VM that is powered off.

    removal: what release did. removal_error: why the snapshot is still there, told after the backup is safe.
    open_seconds: from the first byte to the end of the removal. lock_dir: as remove_snapshot takes it.
    """

    def __init__(
        self, session: Session, vm_obj: Any, snapshot: Optional[OurSnapshot], task_timeout: float, lock_dir: str = ""
    ) -> None:
        self._session = session
        self._vm_obj = vm_obj
        self._task_timeout = task_timeout
        self._lock_dir = lock_dir
        self._stack = ExitStack()
        self._since = time.monotonic()
        self.snapshot = snapshot
        self.lease = LeaseKeeper(self._renew)
        self.read_seconds = 0.0
        self.open_seconds = 0.0
        self.removal: Optional[Removal] = None
        self.removal_error: Optional[VmbackupError] = None

    def __enter__(self) -> HeldSnapshot:
        self._stack.enter_context(self._session.keep_alive())
        if self.snapshot is not None:
            self._stack.enter_context(self.lease)
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._stack.close()

    def release(self) -> None:
        """Remove the snapshot; raises snapshot_vanished where it is gone already."""
        self._stack.close()
        self.read_seconds = time.monotonic() - self._since
        if self.snapshot is None:
            return
        self.require_present()
        try:
            self.removal = remove_snapshot(
                self._session,
                self._vm_obj,
                self.snapshot.lease.id,
                timeout=self._task_timeout,
                lock_dir=self._lock_dir,
            )
        except VmbackupError as error:  # the bytes are good: the backup is committed first, then this is told
            self.removal_error = error
        self.open_seconds = time.monotonic() - self._since

    def require_present(self) -> None:
        """Raise snapshot_vanished unless the snapshot that is held, if any, stands."""
        if self.snapshot is None:
            return
        present = find_snapshot(self._session, self._vm_obj, self.snapshot.lease.id)
        if present is None or present.moid != self.snapshot.moid:
            raise VmbackupError(
                "snapshot_vanished",
                "The snapshot {} was removed by somebody else while its disks were read.".format(self.snapshot.name),
                "Leave snapshots named vmbackup-* to this collection; look for another tool or a second controller.",
            )

    def _renew(self) -> None:
        if self.snapshot is not None:
            renew_lease(self._session, self._vm_obj, self.snapshot, self.snapshot.lease)
