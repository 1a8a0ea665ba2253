# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes frozen files into an archive.

Invariant: one descriptor (ours) and one flat extent of the disk's capacity per disk; a disk that was not read in full
raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Optional, Tuple

from ..core.archive.codecs import choose_codec
from ..core.archive.writer import ArchiveSummary, ArchiveWriter
from ..core.store.manifest import FileEntry
from .datastore import DatastoreReader, descriptor_of, disk_source
from .frozen import FrozenVm, archived_vmx


@dataclass(frozen=True)
class PackingOptions:
    """How to pack. threads, level: None leaves the choice to the engine."""

    codec: str
    level: Optional[int]
    threads: Optional[int]
    include_logs: bool


@dataclass(frozen=True)
class Packed:
    """An archive that was written in full. bytes_read: content bytes of all files."""

    summary: ArchiveSummary
    files: Tuple[FileEntry, ...]
    bytes_read: int


def pack(
    reader: DatastoreReader,
    frozen: FrozenVm,
    options: PackingOptions,
    sink: Any,
    scratch: str,
    mtime: int,
    after_last_byte: Callable[[], None],
) -> Packed:
    """Pack `frozen` into `sink`.

    mtime: seconds since the epoch, of every entry. after_last_byte: called once all frozen bytes were read, before
    the archive is closed, so that the snapshot goes as early as it can.
    """
    files = []
    with ArchiveWriter(
        sink, codec=choose_codec(options.codec, options.level), scratch=scratch, threads=options.threads
    ) as writer:
        for file in frozen.files:
            data = archived_vmx(reader, frozen) if file.path == frozen.vmx_path else reader.read_small(file.path)
            writer.add_bytes(file.name, data, mtime=mtime)
            files.append(FileEntry(file.name, len(data), file.role))
        for disk in frozen.disks:
            descriptor = descriptor_of(disk)
            writer.add_bytes(disk.descriptor_name, descriptor, mtime=mtime)
            with disk_source(reader, disk, scratch) as source:
                writer.add_source(disk.flat_name, source, mtime=mtime)
            files.append(FileEntry(disk.descriptor_name, len(descriptor), "disk descriptor"))
            files.append(FileEntry(disk.flat_name, disk.capacity, "disk extent"))
        after_last_byte()
        summary = writer.close()
    return Packed(summary, tuple(files), sum(entry.size for entry in files))
