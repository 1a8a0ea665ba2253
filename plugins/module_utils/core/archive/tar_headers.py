# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write GNU tar headers.

Invariant: a header depends on its arguments alone (not on Python's version), belongs to root, and is never sparse.
"""

from __future__ import annotations

from ..errors import VmbackupError

BLOCK = 512
END_OF_TAR = bytes(2 * BLOCK)
INDEX_NAME = ".vmbackup/members.idx"

_MAX_OCTAL_SIZE = 0o77777777777
_GNU_MAGIC = b"ustar  \0"
_LONG_NAME = b"././@LongLink"


def encode_name(name: str) -> bytes:
    """Return a file's name as it stands in the tar; raises archive_name_invalid for one that must not stand there."""
    encoded = name.encode("utf-8", "surrogateescape")
    if not name or "\0" in name or name.startswith("/") or ".." in name.split("/") or len(encoded) > 0xFFFF:
        raise VmbackupError("archive_name_invalid", "an archive cannot hold a file named {!r}".format(name))
    return encoded


def padding(size: int) -> int:
    """Return how many zeros follow a file of `size` bytes in the tar stream."""
    return -size % BLOCK


def gnu_header(name: str, size: int, *, mtime: int, mode: int) -> bytes:
    """Return the tar header of a regular file, after a long-name entry where `name` is over 100 bytes.

    size: bytes, any. mtime: Unix seconds. mode: permission bits.
    """
    encoded = encode_name(name)
    header = _block(encoded, size, mtime=mtime, mode=mode, kind=b"0")
    if len(encoded) <= 100:
        return header
    long_name = encoded + b"\0"
    long_entry = _block(_LONG_NAME, len(long_name), mtime=0, mode=0, kind=b"L")
    return long_entry + long_name + bytes(padding(len(long_name))) + header


def _block(name: bytes, size: int, *, mtime: int, mode: int, kind: bytes) -> bytes:
    fields = (
        name[:100].ljust(100, b"\0"),
        b"%07o\0" % (mode & 0o7777),
        b"%07o\0" % 0,
        b"%07o\0" % 0,
        _number(size),
        _number(mtime),
        b" " * 8,
        kind,
        bytes(100),
        _GNU_MAGIC,
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _number(value: int) -> bytes:
    """Return a 12-byte field: octal, or GNU's base-256 for what octal cannot hold (over 8 GiB, before 1970)."""
    if 0 <= value <= _MAX_OCTAL_SIZE:
        return b"%011o\0" % value
    return (value + (1 << 95 if value >= 0 else 1 << 96)).to_bytes(12, "big")
