# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast to send, and how long to try again.

Invariant: a wait is bounded by the limits given here, on a monotonic clock.
"""

from __future__ import annotations

import time
from typing import Callable, Optional, TypeVar

from ..errors import VmbackupError
from .link import RETRYABLE, StoreLink

T = TypeVar("T")

_LONGEST_PAUSE = 15.0


class TokenBucket:
    """A rate limit: at most a quarter of a second's bytes at once. rate: bytes/s; None: no limit."""

    def __init__(
        self,
        rate: Optional[int],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._tokens = 0.0
        self._filled = clock()

    def take(self, size: int) -> None:
        """Wait until `size` bytes may be sent."""
        if not self._rate:
            return
        now = self._clock()
        self._tokens = min(self._tokens + (now - self._filled) * self._rate, self._rate / 4)
        self._filled = now
        self._tokens -= size
        if self._tokens < 0:
            self._sleep(-self._tokens / self._rate)


class Patience:
    """Tries again, with growing pauses, until a link was broken for `retry_for` seconds without progress."""

    def __init__(
        self,
        retry_for: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._retry_for = retry_for
        self._clock = clock
        self._sleep = sleep
        self._broken_since: Optional[float] = None
        self._pause = 0.5

    def progress(self) -> None:
        """Start afresh: bytes got through."""
        self._broken_since, self._pause = None, 0.5

    def wait(self, error: VmbackupError) -> None:
        """Pause before the next attempt; raises `error` when time does not heal it, or, with how long, when time is up.

        A writer's lock heals as well: its session is dead, or is about to commit what this one would.
        """
        heals = error.code in RETRYABLE or error.code == "backup_in_use"
        if self._broken_since is None:
            self._broken_since = self._clock()
        left = self._broken_since + self._retry_for - self._clock()
        if not heals:
            raise error
        if left <= 0:
            message = "{} It was tried for {:g} s (retry_for).".format(error.message, self._retry_for)
            raise VmbackupError(error.code, message, error.hint) from error
        self._sleep(min(self._pause, left))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)


def persist(link: StoreLink, patience: Patience, act: Callable[[], T]) -> T:
    """Do `act` over a link, again on a new session while patience lasts; only for what may be repeated."""
    while True:
        try:
            return act()
        except VmbackupError as error:
            patience.wait(error)
            link.close()  # the next use connects again
