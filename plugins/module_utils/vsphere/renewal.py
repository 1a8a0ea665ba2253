# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the lease of a snapshot fresh while its disks are read.

Invariant: no renewal begins after `leave`; one that is under way ends with its socket's time-out at the latest.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Callable, List, Optional, Type

from ..core.errors import VmbackupError

LONGEST_RENEWAL = 180.0  # seconds: two calls, each within the session's time-out
RENEW_EVERY = 300.0  # seconds; a lease is old after 30 minutes


class LeaseKeeper:
    """Calls `renew` at once and then every `every` seconds between enter and leave; what failed is kept in `failures`."""

    def __init__(self, renew: Callable[[], None], every: float = RENEW_EVERY) -> None:
        self._renew = renew
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vmbackup-lease", daemon=True)
        self.failures: List[str] = []

    def __enter__(self) -> "LeaseKeeper":
        self._thread.start()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._stop.set()
        self._thread.join(LONGEST_RENEWAL)

    def _run(self) -> None:
        while True:
            try:
                self._renew()
            except VmbackupError as error:  # the next turn tries again; five misses in a row make us an orphan
                self.failures.append(str(error))
            if self._stop.wait(self._every):
                return
