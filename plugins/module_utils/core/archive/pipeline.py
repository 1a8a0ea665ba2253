# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compress blocks in threads and hand them over in the order in which they came.

Invariants: at most twice as many blocks are in flight as there are threads, and each read buffer is reused; what goes
wrong in a thread is raised in the caller's; after `stop` no thread is left.
"""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, Deque, NamedTuple, Union

from .codecs import Buffer, Codec
from .members import CHUNK, pack_member
from .sources import Source

_ZEROS = bytes(CHUNK)


class Packed(NamedTuple):
    """A block that was packed; `member` is empty for zeros."""

    member: bytes
    tar_length: int
    digest: bytes
    from_source: bool


class Pipeline:
    """Threads that pack, and the queue of what they were given."""

    def __init__(self, codec: Codec, threads: int, take: Callable[[Packed], None]) -> None:
        """take: called in the caller's thread, in order, with each block."""
        self._codec = codec
        self._take = take
        self._pool = ThreadPoolExecutor(threads)
        self._depth = 2 * threads
        self._queue: Deque[Union[Future[Packed], Packed]] = deque()
        self._buffers: Deque[bytearray] = deque()

    @property
    def waiting(self) -> int:
        """How many blocks were not handed over yet."""
        return len(self._queue)

    def block(self, data: Buffer) -> None:
        """Pack `data` (at most CHUNK bytes; not to be changed any more)."""
        self._submit(self._pool.submit(self._pack, data, False))

    def chunk(self, source: Source, offset: int, length: int) -> None:
        """Pack a piece of a source: read in a thread, or here if the source wants one reader."""
        if source.parallel:
            self._submit(self._pool.submit(self._read_and_pack, source, offset, length))
        else:
            buffer = self._read(source, offset, length)
            self._submit(self._pool.submit(self._pack_buffer, buffer, length))

    def zeros(self, length: int) -> None:
        """Hand over `length` zeros of a source that nobody has to read."""
        self._submit(Packed(b"", length, b"", True))

    def drain(self, left: int = 0) -> None:
        """Hand over until at most `left` blocks are waiting."""
        while len(self._queue) > left:
            head = self._queue.popleft()
            self._take(head if isinstance(head, Packed) else head.result())

    def stop(self) -> None:
        """Drop what waits and end the threads; harmless when they have ended."""
        for waiting in self._queue:
            if isinstance(waiting, Future):
                waiting.cancel()
        self._queue.clear()
        self._pool.shutdown(wait=True)

    def _submit(self, item: Union[Future[Packed], Packed]) -> None:
        self._queue.append(item)
        self.drain(self._depth - 1)

    def _read(self, source: Source, offset: int, length: int) -> bytearray:
        try:
            buffer = self._buffers.pop()  # the last one used: it is still in the processor's cache
        except IndexError:
            buffer = bytearray(CHUNK)
        source.read_into(offset, memoryview(buffer)[:length])
        return buffer

    def _read_and_pack(self, source: Source, offset: int, length: int) -> Packed:
        return self._pack_buffer(self._read(source, offset, length), length)

    def _pack_buffer(self, buffer: bytearray, length: int) -> Packed:
        zero = buffer == _ZEROS if length == CHUNK else buffer[:length] == _ZEROS[:length]
        packed = Packed(b"", length, b"", True) if zero else self._pack(memoryview(buffer)[:length], True)
        self._buffers.append(buffer)
        return packed

    def _pack(self, data: Buffer, from_source: bool) -> Packed:
        return Packed(pack_member(self._codec, data), len(data), hashlib.sha256(data).digest(), from_source)
