# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack straight into the link, with nothing on this machine's disk.

Invariant: every byte is kept until the store has confirmed it, so a link that returns goes on without a gap or a
repeat; at most WINDOW and one block are kept.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from types import TracebackType
from typing import Callable, Deque, Dict, Optional, Type, Union

from ..errors import VmbackupError
from .checksums import sums_text
from .link import StoreLink
from .manifest import Manifest, to_json
from .names import MANIFEST, RECOVER, SUMS
from .pacing import Patience, TokenBucket, persist
from .recover import recover_text

PUT = 1 << 20


class StreamSink:
    """A file of a backup, in the store, written from its start. rate_limit: bytes/s. retry_for: seconds."""

    def __init__(
        self,
        link: StoreLink,
        vm: str,
        backup_id: str,
        file: str,
        *,
        rate_limit: Optional[int] = None,
        retry_for: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._link, self._vm, self._id, self._file = link, vm, backup_id, file
        self._bucket = TokenBucket(rate_limit, clock, sleep)
        self._patience = Patience(retry_for, clock, sleep)
        self._buffer = bytearray()
        self._kept: Deque[bytes] = deque()  # blocks sent and not yet confirmed, the last ends at _end
        self._kept_bytes = 0
        self._end = 0
        self._confirmed = 0

    def write(self, data: Union[bytes, memoryview]) -> None:
        """Append all of `data`; raises stream_broken and what the store refuses."""
        self._buffer += data
        while len(self._buffer) >= PUT:
            block = bytes(self._buffer[:PUT])
            del self._buffer[:PUT]
            self._push(block)

    def close(self) -> None:
        """Send what is left and wait until the store has confirmed everything."""
        if self._buffer or self._end == 0:
            block = bytes(self._buffer)
            self._buffer.clear()
            self._push(block)
        self._persist(self._link.settle)
        self._forget()

    def _push(self, block: bytes) -> None:
        self._bucket.take(len(block))
        offset = self._end
        self._kept.append(block)
        self._kept_bytes += len(block)
        self._end += len(block)
        self._persist(lambda: self._link.put(self._vm, self._id, self._file, offset, block), sends_last=True)
        self._forget()

    def _persist(self, act: Callable[[], None], sends_last: bool = False) -> None:
        """Do `act`; when the link breaks, send again what the store lacks. That covers a put (sends_last).

        Only what the store confirmed counts as progress, so a link that keeps coming back for nothing ends.
        """
        try:
            act()
            self._note_progress()
            return
        except VmbackupError as error:
            failure = error
        while True:
            self._patience.wait(failure)
            try:
                self._link.reconnect()
                self._resend()
                self._link.settle()
                self._patience.progress()
                if not sends_last:
                    act()
                return
            except VmbackupError as error:
                failure = error

    def _note_progress(self) -> None:
        confirmed = self._end - self._link.unacknowledged
        if confirmed > self._confirmed:
            self._confirmed = confirmed
            self._patience.progress()

    def _resend(self) -> None:
        found = self._link.size(self._vm, self._id)
        there = found.sizes.get(self._file, 0)
        start = self._end - self._kept_bytes
        if found.state == "committed" or not start <= there <= self._end:
            raise VmbackupError(
                "stream_broken",
                "The store has {} bytes of {}, between {} and {} were expected.".format(
                    there, self._file, start, self._end
                ),
                "The stream cannot go on; make a new backup.",
            )
        for block in list(self._kept):
            if there < start + len(block) or not block:
                rest = memoryview(block)[max(0, there - start) :]
                self._link.put(self._vm, self._id, self._file, start + len(block) - len(rest), rest)
            start += len(block)

    def _forget(self) -> None:
        """Let go of blocks that the store has confirmed."""
        while self._kept and self._kept_bytes - len(self._kept[0]) >= self._link.unacknowledged:
            self._kept_bytes -= len(self._kept.popleft())


class StreamedBackup:
    """A backup that grows in the store behind a link; the counterpart of IncomingBackup.

    What was not committed stays in .incoming over there, where no reader looks, until it is swept.
    """

    path = ""

    def __init__(
        self,
        link: StoreLink,
        vm: str,
        backup_id: str,
        *,
        rate_limit: Optional[int] = None,
        retry_for: float = 300.0,
        adopt: bool = False,
    ) -> None:
        self._link, self._vm, self._id = link, vm, backup_id
        self._rate_limit, self._retry_for, self._adopt = rate_limit, retry_for, adopt
        self._digests: Dict[str, str] = {}

    def __enter__(self) -> StreamedBackup:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.discard()

    def sink(self, name: str) -> StreamSink:
        """Return a sink for a file of the backup; close it before commit."""
        return StreamSink(self._link, self._vm, self._id, name, rate_limit=self._rate_limit, retry_for=self._retry_for)

    def write(self, name: str, data: bytes) -> None:
        """Send a small file whole."""
        sink = self.sink(name)
        sink.write(data)
        sink.close()
        self._digests[name] = hashlib.sha256(data).hexdigest()

    def commit(self, manifest: Manifest, *, verify: bool = True) -> str:
        """Send manifest, RECOVER.txt and SHA256SUMS, and have the store verify and commit (it always verifies)."""
        del verify
        self.write(MANIFEST, to_json(manifest))
        self.write(RECOVER, recover_text(manifest).encode("utf-8", "surrogateescape"))
        for digest in (manifest.archive, manifest.tree_index):
            if digest is not None:
                self._digests[digest.name] = digest.sha256
        sums = sums_text(self._digests)
        self.write(SUMS, sums)
        sums_sha256 = hashlib.sha256(sums).hexdigest()
        patience = Patience(self._retry_for)
        persist(self._link, patience, lambda: self._link.commit(self._vm, self._id, sums_sha256, self._adopt))
        return "{}/{}".format(self._vm, self._id)

    def discard(self) -> None:
        """End the link's session; harmless after commit."""
        self._link.close()
