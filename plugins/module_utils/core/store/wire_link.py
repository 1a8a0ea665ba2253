# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mover's end of the wire, over the pipes of a child process (ssh).

Invariant: at most WINDOW bytes are unacknowledged; a store that lies, floods or is silent ends in an error; after an
error the session is over and nothing of it is used again.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import fields
from types import TracebackType
from typing import Any, Callable, Deque, Dict, List, Mapping, Optional, Sequence, Type, Union

from ..errors import VmbackupError
from .lineage import Standing
from .manifest import VmIdentity
from .peer_process import PeerGone, PeerProcess
from .receiver import MAX_PUT, Incoming
from .wire import MAX_LINE, PROTOCOL, decode_line, encode_line, number_of, plain_words, text_of

WINDOW = 8 << 20
SILENCE = 120.0
MOST_BUSY = 48 * 3600 // 5  # a receiver says so every 5 seconds: no commit takes 48 hours, and a flood ends soon
_CODE = re.compile("[a-z][a-z_]{1,63}")

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
        self._peer: Optional[PeerProcess] = None
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
        peer = self._connect()
        while self._puts and self.unacknowledged + len(data) > WINDOW:
            self._acknowledge()
        self._puts.append(len(data))
        self.unacknowledged += len(data)
        self._send(encode_line(header))
        self._send(data)
        while self._puts and peer.has_line():
            self._acknowledge()

    def settle(self) -> None:
        """As StoreLink."""
        while self._puts:
            self._acknowledge()

    def commit(self, vm: str, backup_id: str, sums_sha256: str, adopt: bool = False) -> None:
        """As StoreLink."""
        request = {"verb": "commit", "vm": vm, "id": backup_id, "sums_sha256": sums_sha256, "adopt": adopt}
        self._ask(request, MOST_BUSY)

    def note(self, vm: str, record: Mapping[str, Any]) -> None:
        """As StoreLink."""
        line = {"verb": "note", "vm": vm, "record": dict(record)}
        if len(encode_line(line)) > MAX_LINE:
            raise VmbackupError("record_invalid", "The record is too large.", "Shorten it.")
        self._ask(line)

    def tip(self, vm: str, ids: Sequence[str] = ()) -> Optional[Standing]:
        """As StoreLink."""
        found = self._ask({"verb": "tip", "vm": vm, "ids": list(ids)}).get("standing", "")
        if found is None:
            return None
        if not isinstance(found, dict) or not all(isinstance(found.get(part), dict) for part in ("vm", "known")):
            raise VmbackupError("wire_malformed", "The store's answer to tip is malformed.", "Run store_setup.")
        identity = VmIdentity(*(text_of(found["vm"], each.name) for each in fields(VmIdentity)))
        known = {each: text_of(found["known"], each) for each in found["known"]}
        return Standing(text_of(found, "tip"), text_of(found, "base"), identity, known)

    def reconnect(self) -> None:
        """As StoreLink."""
        self.close()
        self._connect()

    def close(self) -> None:
        """As StoreLink."""
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.end()
        self._puts.clear()
        self._greeted = False
        self.unacknowledged = 0

    def _connect(self) -> PeerProcess:
        if self._peer is not None:
            return self._peer
        self._peer = PeerProcess(self._argv, self._silence)
        greeting = self._line()
        if greeting.get("vmbackup") != PROTOCOL:
            spoken = plain_words(str(greeting.get("vmbackup")))[:40]
            self.close()
            raise VmbackupError(
                "store_protocol_mismatch",
                "The store's receiver speaks protocol {}, this side speaks {}.".format(spoken, PROTOCOL),
                "Run the role store from the version of vmbackup.esx that this side has.",
            )
        self._greeted = True
        return self._peer

    def _ask(self, request: Mapping[str, Any], most_busy: int = 0) -> Dict[str, Any]:
        self._connect()
        self.settle()
        self._send(encode_line(request))
        return self._reply(most_busy)

    def _acknowledge(self) -> None:
        self._reply()
        self.unacknowledged -= self._puts.popleft()

    def _reply(self, most_busy: int = 0) -> Dict[str, Any]:
        answer = self._line()
        while answer.get("busy") is True and most_busy > 0:
            answer, most_busy = self._line(), most_busy - 1
        if answer.get("ok") is True:
            return answer
        if self._puts:  # the answers to what is under way would be taken for others
            self.close()
        code = text_of(answer, "code")
        if not _CODE.fullmatch(code):
            self.close()
            raise VmbackupError("wire_malformed", "The store's refusal has no code.")
        raise StoreRefusal(code, plain_words(text_of(answer, "message")), plain_words(text_of(answer, "hint")))

    def _send(self, data: Union[bytes, memoryview]) -> None:
        try:
            self._connect().send(data)
        except PeerGone:
            raise self._lost() from None

    def _line(self) -> Dict[str, Any]:
        if self._peer is None:
            raise VmbackupError("store_link_lost", "The link to the store is not open.")
        try:
            return decode_line(self._peer.line())
        except PeerGone:
            raise self._lost() from None
        except VmbackupError:
            if self._greeted:
                self.close()
                raise
            raise self._lost() from None  # a login shell's chatter, not a receiver

    def _lost(self) -> VmbackupError:
        """End the session and say why it ended, as far as can be told."""
        peer, self._peer = self._peer, None
        code, words = peer.end() if peer is not None else (None, "")
        greeted = self._greeted
        self.close()
        return self._blame(code, words, greeted)
