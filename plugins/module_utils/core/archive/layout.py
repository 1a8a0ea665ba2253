# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a source is cut into chunks.

Invariant: pieces follow one another without a gap, cover the source exactly, and start at multiples of CHUNK.
"""

from __future__ import annotations

from typing import Iterator, NamedTuple

from ..errors import VmbackupError
from .members import CHUNK
from .sources import Source


class Piece(NamedTuple):
    """A chunk to read, or any length of known zeros."""

    offset: int
    length: int
    zero: bool


def pieces(source: Source) -> Iterator[Piece]:
    """Cut a source: chunks where it may hold data, zeros between; raises source_ranges_invalid."""
    position = 0
    known = 0
    for start, end in source.data_ranges():
        if not known <= start < end <= source.size:
            raise VmbackupError(
                "source_ranges_invalid",
                "a source of {} bytes names data from {} to {} after {}".format(source.size, start, end, known),
            )
        known = end
        first = start - start % CHUNK
        if first > position:
            yield Piece(position, first - position, True)
            position = first
        while position < end:
            length = min(CHUNK, source.size - position)
            yield Piece(position, length, False)
            position += length
    if position < source.size:
        yield Piece(position, source.size - position, True)
