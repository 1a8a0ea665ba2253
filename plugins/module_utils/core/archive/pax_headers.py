# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write PAX headers: tar entries of any kind, name, time and owner, with extended attributes.

Invariant: what a ustar field cannot hold exactly stands in a PAX record; equal arguments give equal bytes. Sizes over 8
GiB stand in the header as well, since some readers look nowhere else.

Sources: POSIX.1-2017, pax, "pax Interchange Format"; GNU tar's manual for `GNU.sparse.*` and base-256 numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Tuple

from .tar_headers import BLOCK, padding

REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, FOLDER, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"

_EXTENDED = b"x"
_MAGIC = b"ustar\x0000"
_OCTAL_12 = 1 << 33  # what eleven octal digits hold
_OCTAL_8 = 1 << 21
_EXTENDED_NAME = b"././@PaxHeader"
_NANO = 1_000_000_000


@dataclass(frozen=True)
class PaxEntry:
    """A tar entry.

    name: path in the archive. kind: REGULAR and so on. size: bytes of content in the archive. mtime: ns since 1970.
    link: target of a link. device: major and minor number. records: further PAX records, such as SCHILY.xattr.*.
    """

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    link: bytes = b""
    device: Tuple[int, int] = (0, 0)
    records: Dict[bytes, bytes] = field(default_factory=dict)


def pax_header(entry: PaxEntry) -> bytes:
    """Return the blocks that stand before an entry's content."""
    records = _records(entry)
    header = _block(
        entry.name,
        entry.kind,
        entry.mode,
        (entry.uid, entry.gid),
        entry.size,
        entry.mtime // _NANO,
        entry.link,
        entry.device,
    )
    if not records:
        return header
    body = b"".join(_record(key, value) for key, value in records)
    extended = _block(_EXTENDED_NAME, _EXTENDED, 0o600, (0, 0), len(body), 0)
    return b"".join((extended, body, bytes(padding(len(body))), header))


def _records(entry: PaxEntry) -> List[Tuple[bytes, bytes]]:
    records: List[Tuple[bytes, bytes]] = []
    if not _is_utf8(entry.name) or not _is_utf8(entry.link):
        records.append((b"hdrcharset", b"BINARY"))
    for key, text in ((b"path", entry.name), (b"linkpath", entry.link)):
        if len(text) > 100 or not text.isascii():
            records.append((key, text))
    seconds, fraction = divmod(entry.mtime, _NANO)
    if fraction or not 0 <= seconds < _OCTAL_12:
        records.append((b"mtime", _decimal(entry.mtime)))
    if entry.size >= _OCTAL_12:
        records.append((b"size", b"%d" % entry.size))
    for key, number in ((b"uid", entry.uid), (b"gid", entry.gid)):
        if number >= _OCTAL_8:
            records.append((key, b"%d" % number))
    records.extend(entry.records.items())
    return records


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _decimal(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    return sign + b"%d.%09d" % divmod(abs(nanoseconds), _NANO)


def _record(key: bytes, value: bytes) -> bytes:
    """Return `<length> <key>=<value>\\n`, whose length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _block(
    name: bytes,
    kind: bytes,
    mode: int,
    owner: Tuple[int, int],
    size: int,
    seconds: int,
    link: bytes = b"",
    device: Tuple[int, int] = (0, 0),
) -> bytes:
    fields = (
        name[:100].ljust(100, b"\0"),
        b"%07o\0" % (mode & 0o7777),
        _number(owner[0], 8),
        _number(owner[1], 8),
        _number(size, 12),
        _number(max(0, min(seconds, _OCTAL_12 - 1)), 12),
        b" " * 8,
        kind,
        link[:100].ljust(100, b"\0"),
        _MAGIC,
        bytes(64),  # names of owner and group: numbers alone count
        _number(device[0], 8),
        _number(device[1], 8),
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _number(value: int, width: int) -> bytes:
    """Return a numeric field: octal, or GNU's base-256 for what octal cannot hold."""
    if value < 1 << 3 * (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return (value + (1 << 8 * width - 1)).to_bytes(width, "big")
