# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The right to a VM: of two runs that meet on one VM, the one whose snapshot is older goes on.

Invariant: a run that goes on has looked after its own snapshot stood, and no older live one of ours was there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Callable

from ..core.vm.lease import Lease
from .reaping import Standing, give_way, standing
from .session import Session
from .snapshot_removal import remove_snapshot
from .snapshot_tree import OurSnapshot
from .snapshots import create_snapshot


@dataclass(frozen=True)
class Rules:
    """How snapshots are taken and judged.

    quiesce: as create_snapshot takes it. timeout: seconds without progress. owner_dead, orphan_after: as standing.
    lock_dir: as remove_snapshot takes it.
    """

    quiesce: str
    timeout: float
    owner_dead: Callable[[Lease], bool]
    orphan_after: timedelta
    lock_dir: str = ""


def look(session: Session, vm_obj: Any, backup_id: str, rules: Rules) -> Standing:
    """Sort our snapshots of a VM by the rules; backup_id: this run's, or ""."""
    return standing(session, vm_obj, backup_id, owner_dead=rules.owner_dead, orphan_after=rules.orphan_after)


def require_free(session: Session, vm_obj: Any, found: Standing) -> None:
    """Raise vm_busy when another run holds the VM."""
    if found.live:
        raise give_way(session.title(vm_obj), found.live[0])


def claim(session: Session, vm_obj: Any, lease: Lease, rules: Rules) -> OurSnapshot:
    """Take this backup's snapshot and look again.

    Raises vm_busy when an older one of another run turns out to be there, with ours removed; errors of
    create_snapshot.
    """
    require_free(session, vm_obj, look(session, vm_obj, lease.id, rules))
    mine = create_snapshot(session, vm_obj, lease, quiesce=rules.quiesce, timeout=rules.timeout)
    older = [each for each in look(session, vm_obj, lease.id, rules).live if _rank(each) < _rank(mine)]
    if older:
        remove_snapshot(session, vm_obj, lease.id, timeout=rules.timeout, lock_dir=rules.lock_dir)
        raise give_way(session.title(vm_obj), min(older, key=_rank))
    return mine


def _rank(snapshot: OurSnapshot) -> Any:
    return snapshot.created, snapshot.lease.id
