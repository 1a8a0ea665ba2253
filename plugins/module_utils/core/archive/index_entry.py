# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find and read an archive's index: footer, the index's members, its tar entry, its checksum.

Invariant: what is held in memory stays in proportion to what the archive really stores.
"""

from __future__ import annotations

from ..errors import VmbackupError
from .index import ArchiveIndex
from .members import FOOTER_SIZE, Footer, parse_footer
from .storage import Storage
from .tar_entries import tar_entries
from .tar_headers import BLOCK, END_OF_TAR, INDEX_NAME, padding
from .unpacking import inflate_member, read_raw

_MAX_GROWTH = 64  # digests do not compress, so no index of ours inflates by nearly as much


def read_footer(storage: Storage) -> Footer:
    """Return the footer; raises archive_index_damaged when there is none, or it points out of the archive."""
    start = max(0, storage.size - FOOTER_SIZE)
    footer = parse_footer(storage.read(start, storage.size - start))
    if footer.index_offset + footer.index_length != start:
        raise _damaged("the footer does not follow the index")
    return footer


def read_index(storage: Storage) -> ArchiveIndex:
    """Return the index; raises archive_index_damaged when it is not whole."""
    footer = read_footer(storage)
    try:
        stream = _inflate_entry(storage, footer)
        entry = next(tar_entries(lambda start, length: bytes(stream[start : start + length]), len(stream)), None)
    except VmbackupError as error:
        raise _damaged(error.message) from error
    if entry is None or (entry.name, entry.offset, entry.size) != (INDEX_NAME, BLOCK, footer.index_size):
        raise _damaged("its tar entry is not where the footer says")
    if stream[BLOCK + entry.size :] != bytes(padding(entry.size)) + END_OF_TAR:
        raise _damaged("the tar stream does not end behind it")
    return ArchiveIndex.parse(bytes(memoryview(stream)[BLOCK : BLOCK + entry.size]))


def _inflate_entry(storage: Storage, footer: Footer) -> bytearray:
    stream = bytearray()
    position, end = footer.index_offset, footer.index_offset + footer.index_length
    while position < end:
        raw = read_raw(storage, position)
        stream += inflate_member(raw)
        position += raw.head.length
        if len(stream) > _MAX_GROWTH * (position - footer.index_offset):
            raise _damaged("it inflates beyond any index")
    return stream


def _damaged(why: str) -> VmbackupError:
    return VmbackupError(
        "archive_index_damaged",
        "the archive's index cannot be read: {}".format(why),
        "rebuild the index from the archive's members",
    )
