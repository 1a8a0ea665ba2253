# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deflate and inflate one member's bytes, by isal where it is installed, else by zlib.

Invariant: what `deflate` returns depends on its arguments alone, never on threads or on what was packed before.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Iterator, List, Optional, Type, Union

from ..errors import VmbackupError

try:
    from isal import isal_zlib as _isal_zlib

    _isal: Any = _isal_zlib
    _IsalError: Type[Exception] = _isal.error
except ImportError:
    _isal = None
    _IsalError = zlib.error

Buffer = Union[bytes, bytearray, memoryview]


def _choose_inflate() -> Any:
    """Return isal where it is installed and tells what follows a stream: before 1.8 it swallowed up to 7 bytes."""
    if _isal is None:
        return zlib
    stream = _isal.decompressobj(-15)
    stream.decompress(b"\x03\x00?")  # an empty stream and one byte
    return _isal if stream.unused_data else zlib


_inflate = _choose_inflate()

_LEVELS = {"isal": range(4), "zlib": range(1, 10)}
_DEFAULT_LEVEL = 1  # isal 0 is slower and bigger than 1; zlib 6 costs 2.7 times zlib 1 for a twentieth of the size

_SAMPLE = 4096
_INCOMPRESSIBLE = 0.96


@dataclass(frozen=True)
class Codec:
    """How members are deflated; one for a whole archive."""

    name: str
    level: int


def choose_codec(name: str = "auto", level: Optional[int] = None) -> Codec:
    """Choose the codec of an archive.

    name: `auto` (isal where importable, else zlib), `isal` or `zlib`. level: isal 0 to 3, zlib 1 to 9; None: 1.
    Raises codec_unknown, codec_missing, codec_level_invalid.
    """
    if name == "auto":
        name = "isal" if _isal is not None else "zlib"
    levels = _LEVELS.get(name)
    if levels is None:
        raise VmbackupError(
            "codec_unknown", "no codec is named {!r}".format(name), "use auto, isal or zlib as the codec"
        )
    if name == "isal" and _isal is None:
        raise VmbackupError(
            "codec_missing", "the Python library isal is not installed here", "install isal, or use auto as the codec"
        )
    chosen = _DEFAULT_LEVEL if level is None else level
    if chosen not in levels:
        raise VmbackupError(
            "codec_level_invalid",
            "codec {} has no level {}".format(name, level),
            "use a level from {} to {}".format(levels[0], levels[-1]),
        )
    return Codec(name, chosen)


def deflate(codec: Codec, data: Buffer) -> List[bytes]:
    """Return `data` as the pieces of one complete raw deflate stream."""
    if codec.name == "isal":
        stream = _isal.compressobj(codec.level, zlib.DEFLATED, -15)
    else:
        stream = zlib.compressobj(codec.level if _compresses(data) else 0, zlib.DEFLATED, -15)
    return [stream.compress(data), stream.flush()]


def _compresses(data: Buffer) -> bool:
    """Tell by three samples whether zlib's time on `data` buys anything."""
    if len(data) < 16 * _SAMPLE:
        return True
    view = memoryview(data)
    quarter = len(view) // 4
    samples = b"".join(view[n * quarter : n * quarter + _SAMPLE] for n in (1, 2, 3))
    return len(zlib.compress(samples, 1)) <= _INCOMPRESSIBLE * len(samples)


class BrokenStream(Exception):
    """A deflate stream that does not inflate, or not to what was recorded."""


def inflate(body: Buffer, length: int) -> bytes:
    """Inflate a raw deflate stream of exactly `length` bytes, allocating no more than that and one.

    Raises BrokenStream when the stream is broken, longer, shorter, or followed by other bytes.
    """
    stream = _inflate.decompressobj(-15)
    try:
        data: bytes = stream.decompress(body, length + 1)
    except (zlib.error, _IsalError) as error:
        raise BrokenStream("does not inflate: {}".format(error)) from error
    if len(data) != length or not stream.eof or stream.unused_data:
        raise BrokenStream("does not inflate to its recorded length")
    return data


def inflate_pieces(body: Buffer, size: int) -> Iterator[bytes]:
    """Inflate a raw deflate stream in pieces of at most `size` bytes; raises BrokenStream."""
    stream = _inflate.decompressobj(-15)
    waiting = body
    while not stream.eof:
        try:
            piece = stream.decompress(waiting, size)
        except (zlib.error, _IsalError) as error:
            raise BrokenStream("does not inflate: {}".format(error)) from error
        waiting = stream.unconsumed_tail
        if not piece and not stream.eof:
            raise BrokenStream("ends before its content does")
        yield piece
    if stream.unused_data:
        raise BrokenStream("is followed by other bytes")


def crc32(data: Buffer, before: int = 0) -> int:
    """Return gzip's CRC-32 of `data`. before: the CRC-32 of what precedes it."""
    checksum: int = (_isal or zlib).crc32(data, before)
    return checksum
