# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file's digest: SHA-256 over the SHA-256 of each of its 1 MiB pieces.

Invariant: it depends on the content alone, not on how members were cut; an empty file's is SHA-256 of nothing.
"""

from __future__ import annotations

import hashlib

from .codecs import Buffer
from .members import CHUNK

_ZEROS = bytes(CHUNK)
ZERO_CHUNK_DIGEST = hashlib.sha256(_ZEROS).digest()


def content_digest(data: Buffer) -> bytes:
    """Return the digest of a file whose content is in memory."""
    view = memoryview(data)
    digest = hashlib.sha256()
    for start in range(0, len(view), CHUNK):
        digest.update(hashlib.sha256(view[start : start + CHUNK]).digest())
    return digest.digest()


def zeros_digest(length: int) -> bytes:
    """Return the plain SHA-256 of `length` zeros."""
    digest = hashlib.sha256()
    for start in range(0, length, CHUNK):
        digest.update(_ZEROS[: length - start])
    return digest.digest()
