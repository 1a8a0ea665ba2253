# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders that say themselves that they need no backup.

Invariant: a CACHEDIR.TAG counts only with its signature (https://bford.info/cachedir/), and only as a plain file.
"""

from __future__ import annotations

import os
import stat
from typing import List, NamedTuple, Optional

from .rules import ScanRules

CACHE_TAG = b"CACHEDIR.TAG"
_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Marker(NamedTuple):
    """What marks a folder. kind: cache or marker."""

    name: bytes
    kind: str


def marker_of(rules: ScanRules, fd: int, names: List[bytes]) -> Optional[Marker]:
    """Return what marks the open folder `fd`, if anything does and the rules heed it."""
    for marker in rules.markers:
        if marker in names:
            return Marker(marker, "marker")
    if rules.exclude_caches and CACHE_TAG in names and _is_signed(fd):
        return Marker(CACHE_TAG, "cache")
    return None


def _is_signed(fd: int) -> bool:
    try:
        tag = os.open(CACHE_TAG, _FLAGS, dir_fd=fd)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(tag).st_mode) and os.read(tag, len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False
    finally:
        os.close(tag)
