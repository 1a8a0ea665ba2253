# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scan leaves out and could not read, told in bounded space.

Invariant: nothing that was added is lost: what is not listed is counted.
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple

KEPT = 1000


class LeftOut(NamedTuple):
    """What is not in the index though it lies below a root.

    what: path. kind: other_filesystem, pseudo_filesystem, cache, marker, unreadable, vanished, moved. reason: for people.
    """

    what: bytes
    kind: str
    reason: str


class LeftOutLog:
    """Collect what is left out: the first 1,000, and the number of each kind."""

    def __init__(self) -> None:
        self.by_kind: Dict[str, int] = {}
        self._listed: Dict[bytes, LeftOut] = {}

    def add(self, what: bytes, kind: str, reason: str) -> None:
        """Note one path; it replaces what was noted of that path before."""
        self.forget(what)
        self.by_kind[kind] = self.by_kind.get(kind, 0) + 1
        if len(self._listed) < KEPT:
            self._listed[what] = LeftOut(what, kind, reason)

    def forget(self, what: bytes) -> None:
        """Take back what is listed of a path, because it is looked at anew."""
        noted = self._listed.pop(what, None)
        if noted is not None:
            self.by_kind[noted.kind] -= 1

    def listed(self) -> List[LeftOut]:
        """Return at most 1,000 of them, in the order in which they were found."""
        return list(self._listed.values())

    def unlisted(self) -> int:
        """Return how many more there are."""
        return sum(self.by_kind.values()) - len(self._listed)
