# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write an archive: a tar stream inside many gzip members, with an index.

Invariants: memory does not grow with the archive; an archive is whole only after `close`; after any error no thread
and no file is left, and the writer takes nothing more.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Iterator, Optional, Type, Union

from ..errors import VmbackupError
from .codecs import Codec
from .digests import ZERO_CHUNK_DIGEST, content_digest, zeros_digest
from .index import FileRecord, IndexSpill
from .layout import pieces
from .members import CHUNK, Footer, pack_footer
from .output import ArchiveOutput
from .pipeline import Packed, Pipeline
from .sources import Sink, Source
from .tar_headers import END_OF_TAR, INDEX_NAME, encode_name, gnu_header, padding
from .threads import default_threads


@dataclass(frozen=True)
class ArchivedFile:
    """A file that was packed. digest: hex, see digests.py. sha256: hex, of the content, where it was in memory."""

    name: str
    size: int
    digest: str
    sha256: Optional[str] = None


@dataclass(frozen=True)
class ArchiveSummary:
    """A finished archive. size and sha256: of the whole file. members: the index's own left out."""

    size: int
    sha256: str
    tar_size: int
    members: int
    zero_members: int
    codec: str
    level: int


class ArchiveWriter:
    """Pack files, one after another, into one archive."""

    def __init__(self, sink: Sink, *, codec: Codec, scratch: str, threads: Optional[int] = None) -> None:
        """sink: takes the archive's bytes. scratch: folder for the index while it grows, at most 64 MiB per TiB.

        threads: how many compress; None: one per core, up to 4. Raises scratch_failed.
        """
        self._codec = codec
        self._spill = IndexSpill(scratch)
        self._output = ArchiveOutput(sink, self._spill)
        self._pipeline = Pipeline(codec, threads or default_threads(), self._take)
        self._pending = bytearray()  # headers, padding and small files that wait for a full member
        self._tar_offset = 0
        self._digest: Any = None  # of the source at hand
        self._open = True

    def __enter__(self) -> "ArchiveWriter":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.abort()

    def add_bytes(self, name: str, data: bytes, *, mtime: int, mode: int = 0o600) -> ArchivedFile:
        """Pack a file that is in memory; consecutive small ones share members.

        name: path in the archive. mtime: Unix seconds. Raises archive_name_invalid, and what the sink raises.
        """
        return self.add_entry(name, gnu_header(name, len(data), mtime=mtime, mode=mode), data)

    def add_source(self, name: str, source: Source, *, mtime: int, mode: int = 0o600) -> ArchivedFile:
        """Pack a file chunk by chunk: 1 MiB members from its start, runs of zeros as prepared members.

        name: path in the archive. mtime: Unix seconds. Raises what the source and the sink raise.
        """
        return self.add_entry(name, gnu_header(name, source.size, mtime=mtime, mode=mode), source)

    def add_entry(self, name: str, header: bytes, content: Union[bytes, Source]) -> ArchivedFile:
        """Pack a file under a tar header of the caller's, complete with its extension blocks.

        The header must name the content's size. Raises as add_bytes and add_source do.
        """
        encode_name(name)
        with self._aborting():
            self._append(header)
            if isinstance(content, bytes):
                return self._add_content(name, content)
            return self._add_chunks(name, content)

    def close(self) -> ArchiveSummary:
        """Write the index and the footer, end the threads, and describe the archive."""
        with self._aborting():
            self._flush()
            self._pipeline.drain()
            self._write_index()
            output = self._output
            self.abort()
            return ArchiveSummary(
                output.offset,
                output.sha256.hexdigest(),
                self._tar_offset,
                self._spill.members,
                output.zero_members,
                self._codec.name,
                self._codec.level,
            )

    def abort(self) -> None:
        """End the threads and drop the scratch files; harmless when that was done."""
        self._open = False
        self._pipeline.stop()
        self._spill.close()

    @contextmanager
    def _aborting(self) -> Iterator[None]:
        if not self._open:
            raise VmbackupError("archive_closed", "the archive was closed, or given up after an error")
        try:
            yield
        except BaseException:  # a signal handler may raise anything here, and threads must end all the same
            self.abort()
            raise

    def _add_content(self, name: str, content: bytes) -> ArchivedFile:
        record = self._record(name, len(content), content_digest(content))
        self._spill.add_file(record)
        self._append(content)
        self._append(bytes(padding(len(content))))
        return ArchivedFile(name, len(content), record.digest.hex(), hashlib.sha256(content).hexdigest())

    def _add_chunks(self, name: str, source: Source) -> ArchivedFile:
        self._flush()
        place = self._record(name, source.size, b"")
        self._digest = hashlib.sha256()
        for piece in pieces(source):
            if piece.zero:
                self._pipeline.zeros(piece.length)
            else:
                self._pipeline.chunk(source, piece.offset, piece.length)
        self._pipeline.drain()
        self._output.end_run()
        record = place._replace(digest=self._digest.digest())
        self._spill.add_file(record)
        self._tar_offset += source.size
        self._append(bytes(padding(source.size)))
        return ArchivedFile(name, source.size, record.digest.hex())

    def _record(self, name: str, size: int, digest: bytes) -> FileRecord:
        """Describe the file whose content comes next."""
        # Zeros are joined only inside a source, and nothing of it waits after it: each block that waits is a member.
        member = self._spill.members + self._pipeline.waiting if size else 0
        return FileRecord(name, self._tar_offset, size, member, digest)

    def _take(self, packed: Packed) -> None:
        if packed.from_source:
            if packed.member:
                self._digest.update(packed.digest)
            else:
                self._digest_zeros(packed.tar_length)
        self._output.append(packed)

    def _digest_zeros(self, length: int) -> None:
        for _chunk in range(length // CHUNK):  # not in one piece: a hole may be a whole disk
            self._digest.update(ZERO_CHUNK_DIGEST)
        if length % CHUNK:
            self._digest.update(zeros_digest(length % CHUNK))

    def _append(self, data: bytes) -> None:
        self._tar_offset += len(data)
        view = memoryview(data)
        while len(view):
            room = CHUNK - len(self._pending)
            self._pending += view[:room]
            view = view[room:]
            if len(self._pending) == CHUNK:
                self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._pipeline.block(self._pending)
            self._pending = bytearray()

    def _write_index(self) -> None:
        output = self._output
        offset, tar_offset, size = output.offset, self._tar_offset, self._spill.size()
        output.indexing = False
        self._append(gnu_header(INDEX_NAME, size, mtime=0, mode=0o600))
        for block in self._spill.blocks(self._codec):
            self._append(block)
        self._append(bytes(padding(size)) + END_OF_TAR)
        self._flush()
        self._pipeline.drain()
        output.write(pack_footer(Footer(offset, output.offset - offset, tar_offset, size)))
