# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the headers of a tar stream, as far as an archive of ours can hold them: GNU and PAX.

Invariant: whatever the bytes are, reading ends: each entry stands behind the one before, and headers have a limit.
"""

from __future__ import annotations

import tarfile
from typing import Callable, Dict, Iterator, NamedTuple, Optional, Tuple

from ..errors import VmbackupError
from .tar_headers import BLOCK, padding

ReadAt = Callable[[int, int], bytes]

_MAX_EXTENSION = 1 << 20  # of one long name or one set of PAX records
_WITHOUT_CONTENT = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)
_EXTENSIONS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)


class TarEntry(NamedTuple):
    """An entry. header: where its first header (an extension, if it has any) stands. offset: of its content."""

    name: str
    header: int
    offset: int
    size: int
    regular: bool


def tar_entries(read: ReadAt, end: int) -> Iterator[TarEntry]:
    """Yield the entries of a tar stream up to its end mark, or to `end`.

    read: returns bytes of the stream by offset and length. Raises archive_structure_damaged, and what `read` raises.
    """
    position = 0
    while position < end:
        header = position
        name, size = "", -1
        info = _header(read, position)
        while info is not None and info.type in _EXTENSIONS:
            name, size = _extension(read, position, info, name, size)
            position += BLOCK + info.size + padding(info.size)
            info = _header(read, position)
        if info is None:
            return
        position += BLOCK
        content = 0 if info.type in _WITHOUT_CONTENT else (info.size if size < 0 else size)
        yield TarEntry(name or info.name, header, position, content, info.isreg())
        position += content + padding(content)


def _header(read: ReadAt, position: int) -> Optional[tarfile.TarInfo]:
    block = read(position, BLOCK)
    if len(block) == BLOCK and not any(block):
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise _damaged(position, "holds no tar header") from error
    if info.size < 0:
        raise _damaged(position, "holds a negative size")
    return info


def _extension(read: ReadAt, position: int, info: tarfile.TarInfo, name: str, size: int) -> Tuple[str, int]:
    if info.size > _MAX_EXTENSION:
        raise _damaged(position, "holds a tar extension of {} bytes".format(info.size))
    content = read(position + BLOCK, info.size)
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return content.rstrip(b"\0").decode("utf-8", "surrogateescape"), size
    if info.type == tarfile.XHDTYPE:
        records = _pax_records(content, position)
        try:
            size = int(records.get(b"size", size))
        except ValueError as error:
            raise _damaged(position, "holds a size that is no number") from error
        path = records.get(b"GNU.sparse.name", records.get(b"path", name.encode("utf-8", "surrogateescape")))
        return path.decode("utf-8", "surrogateescape"), size
    return name, size


def _pax_records(content: bytes, position: int) -> Dict[bytes, bytes]:
    """Return PAX records: `<length> <key>=<value>\\n`, one after another."""
    records = {}
    start = 0
    while start < len(content):
        digits, _space, _rest = content[start : start + 20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        key, equals, value = content[start + len(digits) + 1 : start + length - 1].partition(b"=")
        if not equals or content[start + length - 1 : start + length] != b"\n":
            raise _damaged(position, "holds a broken PAX record")
        records[key] = value
        start += length
    return records


def _damaged(position: int, what: str) -> VmbackupError:
    return VmbackupError("archive_structure_damaged", "byte {} of the tar stream {}".format(position, what))
