# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest's place in its chain: what it keeps, what waits to be sent, and what the store says of both.

Invariant: an index is promoted on the store's word alone; a staged copy goes only when the store has committed it, or
when a newer backup that holds all of it is packed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from ..store.folder import StoreTree
from ..store.lineage import Standing
from ..store.link import StoreLink
from ..store.pacing import Patience, persist
from .guest_state import GuestState
from .parent import Parent, Staged, choose_parent

_SENT_LATE = timedelta(days=6)  # a day less than the store lets a late copy begin


@dataclass(frozen=True)
class Position:
    """Where a guest stands. standing: the store's word. committed, waiting: what is staged, oldest first."""

    standing: Optional[Standing]
    indexes: Dict[str, str]
    committed: Tuple[Staged, ...]
    waiting: Tuple[Staged, ...]


class GuestChain:
    """One guest's chain. staging: root of its staging folder. retry_for: seconds for a link that is broken."""

    def __init__(self, vm: str, state: GuestState, staging: str, link: StoreLink, retry_for: float) -> None:
        self.vm, self.state, self.tree = vm, state, StoreTree(staging)
        self._link, self._retry_for = link, retry_for

    def look(self) -> Position:
        """Ask the store where the chain stands; changes nothing. Raises what the link and the store raise."""
        staged = self._staged()
        indexes = {**self.state.indexes(), **{each.id: each.index for each in staged}}
        ids = sorted(indexes, reverse=True)
        standing = persist(self._link, Patience(self._retry_for), lambda: self._link.tip(self.vm, ids))
        self._link.close()  # what comes next may take hours
        known = standing.known if standing else {}
        committed = tuple(each for each in staged if each.id in known)
        return Position(standing, indexes, committed, tuple(each for each in staged if each.id not in known))

    def parent(self, position: Position, now: datetime, *, differential: bool, complete: bool) -> Parent:
        """Return what the next incremental stands on; raises full_due. now: aware."""
        return choose_parent(
            self.vm,
            position.standing,
            position.indexes,
            position.waiting,
            oldest=now - _SENT_LATE,
            differential=differential,
            complete=complete,
        )

    def settle(self, position: Position, now: datetime) -> Position:
        """Promote what the store has committed, drop what a dead run left, and return the position after that.

        For the holder of the guest's lock. now: aware. Raises guest_state_unusable, store_io_failed.
        """
        for staged in position.committed:
            self.promote_staged(staged.id, staged.index)
        known = position.standing.known if position.standing else {}
        for backup_id, path in self.state.pending().items():
            if backup_id in known:
                self.state.promote(backup_id, path)
        self.state.drop_pending(now)
        indexes = {**self.state.indexes(), **{each.id: each.index for each in position.waiting}}
        return Position(position.standing, indexes, (), position.waiting)

    def promote_staged(self, backup_id: str, index: str) -> None:
        """Keep the index of a staged backup that the store has committed, then remove the staged copy."""
        self.state.promote(backup_id, index)
        self.tree.remove(self.vm, backup_id)

    def drop_stale(self, parent: Parent) -> None:
        """Remove staged backups that a newer one, packed by now, replaces."""
        for backup_id in parent.stale:
            self.tree.remove(self.vm, backup_id)

    def _staged(self) -> List[Staged]:
        found = []
        for each in self.tree.backups(self.vm):
            manifest = each.manifest
            if manifest and manifest.parent and manifest.base and manifest.tree_index:
                index = str(Path(each.path) / manifest.tree_index.name)
                found.append(Staged(each.id, manifest.parent, manifest.base, index))
        return found
