# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup that grows in a folder on this machine.

Invariant: it becomes visible by commit alone; leaving its context without one removes it.
"""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Callable, Dict, Optional, Type, Union

from .checksums import file_sha256, list_files, sums_text
from .commit import publish, stamp_arrival, verify_incoming
from .durable import fsync_file, store_error, write_durably
from .layout import VmFolder
from .lineage import check_lineage
from .manifest import Manifest, to_json
from .names import MANIFEST, RECOVER, SUMS, plain_file_name
from .recover import recover_text
from .writer_lock import WriterLock


class FileSink:
    """A file of the backup that is written from its start."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        try:
            self._file: BinaryIO = path.open("wb", buffering=0)
        except OSError as error:
            raise store_error(error, self._path) from error

    def write(self, data: Union[bytes, memoryview]) -> None:
        """Append all of `data`; raises store_full, store_not_writable, store_io_failed."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise store_error(error, self._path) from error

    def close(self) -> None:
        """Close the file (commit flushes it to the disk); harmless when repeated."""
        self._file.close()


class IncomingBackup:
    """The growing folder and its writer's lock."""

    def __init__(self, folder: VmFolder, backup_id: str, lock: WriterLock, adopt: bool) -> None:
        self._folder = folder
        self._id = backup_id
        self._lock = lock
        self._adopt = adopt
        self.path = str(folder.incoming(backup_id))

    def __enter__(self) -> IncomingBackup:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.discard()

    def sink(self, name: str) -> FileSink:
        """Open a file of the backup for writing; raises file_name_invalid and what FileSink raises."""
        self._lock.still_held()
        return FileSink(Path(self.path) / plain_file_name(name))

    def write(self, name: str, data: bytes) -> None:
        """Write a small file whole; raises file_name_invalid, store_full, store_not_writable, store_io_failed."""
        try:
            write_durably(str(Path(self.path) / plain_file_name(name)), data)
        except OSError as error:
            raise store_error(error, self.path) from error

    def commit(
        self,
        manifest: Manifest,
        *,
        verify: bool = True,
        clock: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> str:
        """Complete the backup and make it visible; returns its place.

        verify: read everything again and record the arrival, as a store must; a staging folder leaves that to the
        store. Raises vm_uuid_differs, parent_missing, backup_damaged, backup_incomplete, store_full and its like.
        """
        if verify:  # a staged incremental's parent is in the store, not here
            check_lineage(self._folder, manifest, self._adopt)
        try:
            sums = self._complete(manifest)
            if verify:
                digest = file_sha256(Path(self.path) / SUMS, lambda: None)
                verify_incoming(self._folder, self._id, digest, self._adopt, self._lock.still_held)
                stamp_arrival(self._folder, manifest, clock(), "local")
            else:
                for name in sums:
                    fsync_file(str(Path(self.path) / name))
            place = publish(self._folder, self._id)
        except OSError as error:
            raise store_error(error, self.path) from error
        self._lock.release(remove=True)
        return str(place)

    def _complete(self, manifest: Manifest) -> Dict[str, str]:
        """Write manifest, RECOVER.txt and SHA256SUMS; digests that the manifest holds are taken from it."""
        self.write(MANIFEST, to_json(manifest))
        self.write(RECOVER, recover_text(manifest).encode("utf-8", "surrogateescape"))
        known = {digest.name: digest.sha256 for digest in (manifest.archive, manifest.tree_index) if digest is not None}
        folder = Path(self.path)
        names = [name for name in list_files(folder) if name != SUMS]
        sums = {name: known.get(name) or file_sha256(folder / name, self._lock.still_held) for name in names}
        self.write(SUMS, sums_text(sums))
        return sums

    def discard(self) -> None:
        """Remove what was not committed, and give up the lock; harmless after commit and when repeated.

        What cannot be removed stays where no reader looks, and is swept later: the cause that led here is what counts.
        """
        if Path(self.path).is_dir() and self._lock.still_held():
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release(remove=True)
