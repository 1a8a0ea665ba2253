# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of files in an archive.

Invariant: no two are equal, and none leads out of the folder that it is unpacked in.
"""

from __future__ import annotations

import posixpath
import re
from typing import List, Set, Tuple

from ..core.vm.facts import split_path


class ArchiveNames:
    """Names in the archive: those on the datastores, made different where two are equal."""

    def __init__(self) -> None:
        self._taken: Set[str] = set()

    def file(self, path: str) -> str:
        """Name a small file."""
        return self._free([self._plain(path)])[0]

    def disk(self, path: str) -> Tuple[str, str]:
        """Name a disk's descriptor and flat extent."""
        stem = re.sub(r"(-[0-9]{6})?\.vmdk$", "", self._plain(path))
        descriptor, flat = self._free([stem + ".vmdk", stem + "-flat.vmdk"])
        return descriptor, flat

    def _plain(self, path: str) -> str:
        name = re.sub(r'[\x00-\x1f"/\x7f]', "_", posixpath.basename(split_path(path)[1]))
        return "_" + name if name in ("", ".", "..") else name

    def _free(self, names: List[str]) -> List[str]:
        number, free = 0, names
        while self._taken.intersection(free):
            number += 1
            free = ["{}_{}".format(number, name) for name in names]
        self._taken.update(free)
        return free
