# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program on the store that sshd starts for a key: reads requests, obeys a Receiver, answers.

Invariant: what it may do is said by its own arguments (the forced command) alone; SSH_ORIGINAL_COMMAND is never looked
at. It runs as an ordinary user and makes files that nobody else can read.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import asdict
from datetime import datetime
from typing import Any, BinaryIO, Dict, List, Mapping, Optional

from ..errors import VmbackupError
from .grants import load_policy
from .receiver import MAX_PUT, Receiver
from .wire import MAX_LINE, PROTOCOL, encode_line, number_of, read_request, text_of, texts_of

_MAX_OFFSET = 1 << 60
_BUSY_EVERY = 5.0


class Server:
    """One session over a pair of streams."""

    def __init__(self, root_and_grant: Any, requests: BinaryIO, answers: BinaryIO) -> None:
        root, grant = root_and_grant
        self._requests = requests
        self._answers = answers
        self._told_busy = time.monotonic()
        self._receiver = Receiver(root, grant, lambda: datetime.now().astimezone(), self._busy)

    def run(self) -> None:
        """Answer until the other side ends; raises wire_malformed, OSError when it is gone."""
        try:
            self._send({"vmbackup": PROTOCOL})
            request = read_request(self._requests)
            while request is not None:
                self._answer(request)
                request = read_request(self._requests)
        finally:
            self._receiver.close()

    def _answer(self, request: Mapping[str, Any]) -> None:
        payload = self._payload(request)  # first: what follows must start at a line, whatever comes of this one
        try:
            self._send({"ok": True, **self._obey(request, payload)})
        except VmbackupError as error:
            self._send({"ok": False, "code": error.code, "message": error.message, "hint": error.hint})

    def _payload(self, request: Mapping[str, Any]) -> bytes:
        if request.get("verb") != "put":
            return b""
        length = number_of(request, "length", MAX_PUT)
        payload = self._requests.read(length)
        if len(payload) < length:
            raise VmbackupError("wire_malformed", "The link ended inside a put.")
        return payload

    def _obey(self, request: Mapping[str, Any], payload: bytes) -> Dict[str, Any]:
        verb, vm = text_of(request, "verb"), text_of(request, "vm")
        if verb == "tip":
            standing = self._receiver.tip(vm, texts_of(request, "ids"))
            return {"standing": asdict(standing) if standing else None}
        if verb == "note":
            record = request.get("record")
            self._receiver.note(vm, record if isinstance(record, dict) else {})
            return {}
        backup_id = text_of(request, "id")
        if verb == "size":
            found = self._receiver.size(vm, backup_id)
            return {"state": found.state, "sizes": found.sizes}
        if verb == "put":
            offset = number_of(request, "offset", _MAX_OFFSET)
            self._receiver.put(vm, backup_id, text_of(request, "file"), offset, payload)
            return {}
        if verb == "commit":
            self._receiver.commit(vm, backup_id, text_of(request, "sums_sha256"), request.get("adopt") is True)
            return {}
        raise VmbackupError("wire_malformed", "The store knows no verb {!r}.".format(verb[:40]))

    def _busy(self) -> None:
        """Say now and then that a long commit is alive."""
        if time.monotonic() - self._told_busy > _BUSY_EVERY:
            self._told_busy = time.monotonic()
            self._send({"busy": True})

    def _send(self, message: Mapping[str, Any]) -> None:
        line = encode_line(message)
        if len(line) > MAX_LINE:
            raise VmbackupError("wire_malformed", "An answer is too long.")
        self._answers.write(line)
        self._answers.flush()


def main(arguments: Optional[List[str]] = None) -> int:
    """Serve standard input and output; returns the exit code."""
    parser = argparse.ArgumentParser(prog="vmbackup-receiver", description="The store's end of a vmbackup.esx link.")
    parser.add_argument("--policy", required=True, help="policy file of this store")
    parser.add_argument("--key", required=True, help="whose key this is, by the policy")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    try:
        Server(load_policy(options.policy, options.key), sys.stdin.buffer, sys.stdout.buffer).run()
    except VmbackupError as error:
        sys.stderr.write("vmbackup-receiver: {}: {}\n".format(error.code, error))
        return 3
    except (BrokenPipeError, ConnectionError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter complains when it flushes at its end
    return 0
