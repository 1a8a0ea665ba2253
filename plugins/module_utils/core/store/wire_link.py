# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mover's end of the wire, over the pipes of a child process (ssh).

Invariant: at most WINDOW bytes are unacknowledged; every wait has a limit; after an error the session is over and
nothing of it is used again.
"""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
from collections import deque
from types import TracebackType
from typing import IO, Any, Callable, Deque, Dict, List, Mapping, Optional, Type, Union

from ..errors import VmbackupError
from .receiver import MAX_PUT, Incoming
from .wire import MAX_LINE, PROTOCOL, decode_line, encode_line, number_of, text_of

WINDOW = 8 << 20
SILENCE = 120.0
_END = 5.0
_STDERR_TAIL = 2000

Blame = Callable[[Optional[int], str, bool], VmbackupError]


class StoreRefusal(VmbackupError):
    """What the receiver on the other side raised, under the code that it has there."""


class WireLink:
    """A session with a receiver that `argv` starts.

    blame: makes the error of a session that ended, from (exit code or None, last words on stderr, had it greeted).
    silence: seconds without any sign after which the session counts as lost.
    """

    def __init__(self, argv: List[str], blame: Blame, silence: float = SILENCE) -> None:
        self._argv = argv
        self._blame = blame
        self._silence = silence
        self._child: Optional[subprocess.Popen[bytes]] = None
        self._stderr: Optional[IO[bytes]] = None
        self._heard = bytearray()
        self._puts: Deque[int] = deque()
        self._greeted = False
        self.unacknowledged = 0

    def __enter__(self) -> WireLink:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def size(self, vm: str, backup_id: str) -> Incoming:
        """As StoreLink."""
        answer = self._ask({"verb": "size", "vm": vm, "id": backup_id})
        state, sizes = text_of(answer, "state"), answer.get("sizes")
        if state not in ("absent", "partial", "committed") or not isinstance(sizes, dict):
            raise VmbackupError("wire_malformed", "The store's answer to size is malformed.")
        return Incoming(state, {str(name): number_of(sizes, name, 1 << 60) for name in sizes})

    def put(self, vm: str, backup_id: str, file: str, offset: int, data: Union[bytes, memoryview]) -> None:
        """As StoreLink; returns when the bytes are on their way, raising what earlier puts met."""
        if len(data) > MAX_PUT:
            raise VmbackupError("put_too_large", "A put holds at most {} bytes.".format(MAX_PUT))
        header = {"verb": "put", "vm": vm, "id": backup_id, "file": file, "offset": offset, "length": len(data)}
        self._connect()
        while self._puts and self.unacknowledged + len(data) > WINDOW:
            self._acknowledge()
        self._puts.append(len(data))
        self.unacknowledged += len(data)
        self._send(encode_line(header))
        self._send(data)
        while self._puts and (b"\n" in self._heard or self._readable(0)):
            self._acknowledge()

    def settle(self) -> None:
        """As StoreLink."""
        while self._puts:
            self._acknowledge()

    def commit(self, vm: str, backup_id: str, sums_sha256: str, adopt: bool = False) -> None:
        """As StoreLink."""
        self._ask({"verb": "commit", "vm": vm, "id": backup_id, "sums_sha256": sums_sha256, "adopt": adopt})

    def note(self, vm: str, record: Mapping[str, Any]) -> None:
        """As StoreLink."""
        line = {"verb": "note", "vm": vm, "record": dict(record)}
        if len(encode_line(line)) > MAX_LINE:
            raise VmbackupError("record_invalid", "The record is too large.", "Shorten it.")
        self._ask(line)

    def tip(self, vm: str) -> Optional[str]:
        """As StoreLink."""
        found = self._ask({"verb": "tip", "vm": vm}).get("id")
        return found if isinstance(found, str) else None

    def reconnect(self) -> None:
        """As StoreLink."""
        self.close()
        self._connect()

    def close(self) -> None:
        """As StoreLink."""
        child, self._child = self._child, None
        if child is not None:
            _end(child)
        if self._stderr is not None:
            self._stderr.close()
        self._heard.clear()
        self._puts.clear()
        self._greeted = False
        self.unacknowledged = 0

    def _connect(self) -> None:
        if self._child is not None:
            return
        self._stderr = tempfile.TemporaryFile()
        self._child = subprocess.Popen(
            self._argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            start_new_session=True,  # a signal from a terminal is for the module, which then ends this in order
        )
        os.set_blocking(self._in.fileno(), False)
        greeting = self._line()
        if greeting.get("vmbackup") != PROTOCOL:
            raise VmbackupError(
                "store_protocol_mismatch",
                "The store's receiver speaks protocol {}, this side speaks {}.".format(
                    greeting.get("vmbackup"), PROTOCOL
                ),
                "Run the role store from the version of vmbackup.esx that this side has.",
            )
        self._greeted = True

    def _ask(self, request: Mapping[str, Any]) -> Dict[str, Any]:
        self._connect()
        self.settle()
        self._send(encode_line(request))
        return self._reply()

    def _acknowledge(self) -> None:
        self._reply()
        self.unacknowledged -= self._puts.popleft()

    def _reply(self) -> Dict[str, Any]:
        answer = self._line()
        while "busy" in answer:
            answer = self._line()
        if answer.get("ok") is True:
            return answer
        if self._puts:  # the answers to what is under way would be taken for others
            self.close()
        raise StoreRefusal(text_of(answer, "code"), text_of(answer, "message"), text_of(answer, "hint"))

    def _send(self, data: Union[bytes, memoryview]) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._in.fileno(), view) :]
            except BlockingIOError:
                if not select.select([], [self._in], [], self._silence)[1]:
                    raise self._lost() from None
            except BrokenPipeError:
                raise self._lost() from None

    def _line(self) -> Dict[str, Any]:
        while b"\n" not in self._heard:
            if not self._readable(self._silence):
                raise self._lost()
            part = os.read(self._out.fileno(), MAX_LINE)
            if not part or len(self._heard) > MAX_LINE:
                raise self._lost()
            self._heard += part
        line, rest = bytes(self._heard).split(b"\n", 1)
        self._heard[:] = rest
        try:
            return decode_line(line + b"\n")
        except VmbackupError:
            if self._greeted:
                raise
            raise self._lost() from None  # a login shell's chatter, not a receiver

    def _readable(self, timeout: float) -> bool:
        return bool(select.select([self._out], [], [], timeout)[0])

    def _lost(self) -> VmbackupError:
        """End the session and say why it ended, as far as can be told."""
        child, self._child = self._child, None
        code = _end(child) if child is not None else None
        words, greeted = "", self._greeted
        if self._stderr is not None:
            size = self._stderr.seek(0, os.SEEK_END)
            self._stderr.seek(max(0, size - _STDERR_TAIL))
            words = self._stderr.read().decode("utf-8", "replace").strip()
        self.close()
        return self._blame(code, words, greeted)

    @property
    def _in(self) -> IO[bytes]:
        return _piped(self._child.stdin if self._child else None)

    @property
    def _out(self) -> IO[bytes]:
        return _piped(self._child.stdout if self._child else None)


def _piped(pipe: Optional[IO[bytes]]) -> IO[bytes]:
    if pipe is None:
        raise VmbackupError("store_link_lost", "The link to the store is not open.")
    return pipe


def _end(child: subprocess.Popen[bytes]) -> int:
    """Close the pipes and wait for the child, at most _END seconds before it is killed."""
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
    try:
        return child.wait(_END)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()
