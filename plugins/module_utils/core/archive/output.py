# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive as it grows: members one after another, runs of zeros joined, everything counted, digested and indexed.

Invariant: what was written, its digest, its offsets and its index agree at every moment.
"""

from __future__ import annotations

import hashlib

from ..errors import VmbackupError
from .index import IndexSpill, MemberRecord
from .members import CHUNK, FLAG_ZERO, ZERO_RUN, ZeroMembers
from .pipeline import Packed
from .sources import Sink


class ArchiveOutput:
    """The written side of an archive."""

    def __init__(self, sink: Sink, spill: IndexSpill) -> None:
        """sink: where the bytes go. spill: where the members are noted."""
        self.offset = 0
        self.tar_offset = 0
        self.zero_members = 0
        self.sha256 = hashlib.sha256()
        self.indexing = True  # off for the index's own members
        self._sink = sink
        self._spill = spill
        self._zeros = ZeroMembers()
        self._run = 0  # zeros seen, not written yet

    def append(self, packed: Packed) -> None:
        """Take the next block; zeros wait until their run ends."""
        if packed.member:
            self.end_run()
            self._write(packed.member, packed.tar_length, 0, packed.digest)
            return
        self._run += packed.tar_length
        while self._run >= ZERO_RUN:
            self._write_zeros(ZERO_RUN)

    def end_run(self) -> None:
        """Write the zeros that wait."""
        whole = self._run - self._run % CHUNK
        for length in (whole, self._run - whole):
            if length:
                self._write_zeros(length)

    def write(self, data: bytes) -> None:
        """Append bytes to the archive; raises archive_write_failed."""
        try:
            self._sink.write(data)
        except OSError as error:
            raise VmbackupError(
                "archive_write_failed",
                "the archive could not be written: {}".format(error.strerror or error),
                "see that there is space where the archive goes",
            ) from error
        self.sha256.update(data)
        self.offset += len(data)

    def _write_zeros(self, length: int) -> None:
        zeros = self._zeros.get(length)
        self._run -= length
        self.zero_members += 1
        self._write(zeros.member, length, FLAG_ZERO, zeros.digest)

    def _write(self, member: bytes, tar_length: int, flags: int, digest: bytes) -> None:
        if self.indexing:
            record = MemberRecord(self.offset, self.tar_offset, len(member), tar_length, flags, digest)
            self._spill.add_member(record)
        self.write(member)
        self.tar_offset += tar_length
