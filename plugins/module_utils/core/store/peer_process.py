# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The child process (ssh) behind a link: its lines, its input, its last words.

Invariant: every wait has a limit, and whatever the child pours out, at most one line and a tail of words is kept.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from contextlib import suppress
from typing import IO, Any, List, Tuple, Union

from ..errors import VmbackupError
from .wire import MAX_LINE

_END = 5.0
_TAIL = 2000
_LAST_READS = 16


class PeerGone(Exception):
    """The child ended, was silent for too long, or sent a line that is too long."""


class PeerProcess:
    """A running child. silence: seconds after which one that gives no whole line, or takes no byte, counts as gone."""

    def __init__(self, argv: List[str], silence: float) -> None:
        """Start it; raises store_ssh_missing."""
        self._silence = silence
        self._heard = bytearray()
        self._words = b""
        try:
            self._child = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # a signal from a terminal is for the module, which then ends this in order
            )
        except FileNotFoundError:
            raise VmbackupError(
                "store_ssh_missing",
                "There is no {} on this host.".format(argv[0]),
                "Install the OpenSSH client on the mover, or set store.path for a store that is mounted there.",
            ) from None
        self._in, self._out, self._err = (
            _unblocked(pipe) for pipe in (self._child.stdin, self._child.stdout, self._child.stderr)
        )
        self._err_open = True
        self.pid = self._child.pid

    def send(self, data: Union[bytes, memoryview]) -> None:
        """Hand all of `data` over; raises PeerGone."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._in.fileno(), view) :]
            except BlockingIOError:
                if not self._wait(self._in, self._silence):
                    raise PeerGone from None
            except BrokenPipeError:
                raise PeerGone from None

    def line(self) -> bytes:
        """Return the next line with its end; raises PeerGone."""
        deadline = time.monotonic() + self._silence
        while b"\n" not in self._heard:
            if len(self._heard) > MAX_LINE or not self._wait(self._out, deadline - time.monotonic()):
                raise PeerGone
            part = os.read(self._out.fileno(), MAX_LINE)
            if not part:
                raise PeerGone
            self._heard += part
        end = self._heard.index(b"\n") + 1
        line = bytes(self._heard[:end])
        del self._heard[:end]
        return line

    def has_line(self) -> bool:
        """Tell whether `line` has something to begin with at once."""
        return b"\n" in self._heard or self._wait(self._out, 0)

    def end(self) -> Tuple[int, str]:
        """Close its pipes, wait at most _END seconds before it is killed; return its exit code and last words."""
        self._in.close()
        self._out.close()
        deadline = time.monotonic() + _END
        while self._err_open and self._child.poll() is None and time.monotonic() < deadline:
            if select.select([self._err], [], [], 0.1)[0]:
                self._take_words()
        try:
            code = self._child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._child.kill()
            code = self._child.wait()
        for _turn in range(_LAST_READS):
            if self._err_open:
                self._take_words()
        self._err.close()
        return code, self._words.decode("utf-8", "replace").strip()

    def _wait(self, pipe: IO[bytes], timeout: float) -> bool:
        """Wait until a pipe is ready, taking words from stderr meanwhile; False after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        writers = [self._in] if pipe is self._in else []
        while True:
            left = max(0.0, deadline - time.monotonic())
            readers = ([] if writers else [self._out]) + ([self._err] if self._err_open else [])
            readable, writable = select.select(readers, writers, [], left)[:2]
            if self._err in readable:
                self._take_words()
            if writable or self._out in readable:
                return True
            if left == 0.0:
                return False

    def _take_words(self) -> None:
        with suppress(BlockingIOError):
            part = os.read(self._err.fileno(), MAX_LINE)
            self._words = (self._words + part)[-_TAIL:]
            self._err_open = bool(part)


def _unblocked(pipe: Any) -> IO[bytes]:
    """Return a pipe that was asked for, so that it is no None."""
    os.set_blocking(pipe.fileno(), False)
    opened: IO[bytes] = pipe
    return opened
