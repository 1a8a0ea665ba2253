# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wire between a mover and a store: lines of JSON, and raw bytes after a put's line.

Invariant: whatever the other side sends, a line is bounded, a put is bounded, and the next line starts where it should.

  store: {"vmbackup": 1}                                            once, first
  mover: {"verb": "size", "vm": ..., "id": ...}
         {"verb": "put", "vm", "id", "file", "offset", "length"}    then `length` bytes
         {"verb": "commit", "vm", "id", "sums_sha256", "adopt"}
         {"verb": "note", "vm", "record": {"kind", "backup_id", "body"}}
         {"verb": "tip", "vm", "ids": [...]}                        answered with {"standing": null or {...}}
  store: {"ok": true, ...} or {"ok": false, "code", "message", "hint"}, one for each, in order;
         {"busy": true} any number of times before the answer to a commit
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO, Dict, List, Mapping, Optional

from ..errors import VmbackupError

PROTOCOL = 1
MAX_LINE = 64 << 10
_LONGEST_WORDS = 1000


def encode_line(message: Mapping[str, Any]) -> bytes:
    """Return a message as one line of ASCII."""
    return (json.dumps(message, separators=(",", ":")) + "\n").encode("ascii")


def decode_line(line: bytes) -> Dict[str, Any]:
    """Return the message of one line; raises wire_malformed."""
    try:
        message = json.loads(line.decode("ascii"))
    except (ValueError, RecursionError):
        message = None
    if not line.endswith(b"\n") or not isinstance(message, dict):
        raise _malformed("a line is not a JSON object")
    return message


def read_request(stream: BinaryIO) -> Optional[Dict[str, Any]]:
    """Return the next request; None at a clean end. Raises wire_malformed."""
    line = stream.readline(MAX_LINE + 1)
    if not line:
        return None
    if len(line) > MAX_LINE:
        raise _malformed("a line is too long")
    return decode_line(line)


def text_of(message: Mapping[str, Any], name: str) -> str:
    """Return a field that must be a string; raises wire_malformed."""
    value = message.get(name)
    if not isinstance(value, str):
        raise _malformed("{} must be a string".format(name))
    return value


def texts_of(message: Mapping[str, Any], name: str) -> List[str]:
    """Return a field that must be a list of strings; raises wire_malformed."""
    values = message.get(name)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _malformed("{} must be a list of strings".format(name))
    return values


def number_of(message: Mapping[str, Any], name: str, most: int) -> int:
    """Return a field that must be a whole number from 0 to `most`; raises wire_malformed."""
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise _malformed("{} must be a number from 0 to {}".format(name, most))
    return value


def plain_words(text: str) -> str:
    """Return what the other side says as one printable line that is not too long to be shown."""
    return "".join(each if each.isprintable() else " " for each in text[:_LONGEST_WORDS])


def _malformed(complaint: str) -> VmbackupError:
    return VmbackupError(
        "wire_malformed",
        "The other side of the link does not speak the store's protocol: {}.".format(complaint),
        "Run the role store, so that both sides have one version.",
    )
