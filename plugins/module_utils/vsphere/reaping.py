# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of our snapshots of a VM somebody holds, which are orphans, and the removal of what dead runs left.

Invariant: a snapshot is reaped only when its lease has run out or its owner is proven dead; a user's never.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Callable, List, Tuple

from ..core.errors import VmbackupError
from ..core.utc import utc_text
from ..core.vm.lease import Lease, is_orphan
from .session import Session
from .snapshot_removal import remove_snapshot
from .snapshot_tree import OurSnapshot, our_snapshots


@dataclass(frozen=True)
class Standing:
    """Our snapshots of a VM. mine: of this backup. live: of others, held. orphans: of others, held by nobody.

    unmerged: id of the backup whose removal by a dead run left the disks unmerged; "" for none.
    """

    mine: Tuple[OurSnapshot, ...]
    live: Tuple[OurSnapshot, ...]
    orphans: Tuple[OurSnapshot, ...]
    unmerged: str = ""

    @property
    def leftovers(self) -> List[str]:
        """Ids of the backups of dead runs of which something stays on the VM."""
        return [each.lease.id for each in self.orphans] + ([self.unmerged] if self.unmerged else [])


def standing(
    session: Session, vm_obj: Any, backup_id: str, *, owner_dead: Callable[[Lease], bool], orphan_after: timedelta
) -> Standing:
    """Sort our snapshots of a VM.

    backup_id: of this run; "" when it has none. owner_dead: tells whether a lock proves a lease's owner dead.
    """
    now, found = session.now(), our_snapshots(session, vm_obj)
    others = [each for each in found if each.lease.id != backup_id]
    orphans = [
        each
        for each in others
        if is_orphan(each.lease, each.created, now, owner_dead=owner_dead(each.lease), orphan_after=orphan_after)
    ]
    return Standing(
        tuple(each for each in found if each.lease.id == backup_id),
        tuple(each for each in others if each not in orphans),
        tuple(orphans),
    )


def reap(session: Session, vm_obj: Any, leftovers: List[str], *, timeout: float, lock_dir: str = "") -> List[str]:
    """Remove what dead runs left; return the ids of their backups. lock_dir: as remove_snapshot takes it.

    Raises snapshot_not_removed.
    """
    for backup_id in leftovers:
        remove_snapshot(session, vm_obj, backup_id, timeout=timeout, lock_dir=lock_dir)
    return leftovers


def give_way(title: str, holder: OurSnapshot) -> VmbackupError:
    """Return the error that says who holds a VM."""
    lease = holder.lease
    since = "never renewed" if lease.renewed is None else "renewed at {}".format(utc_text(lease.renewed))
    return VmbackupError(
        "vm_busy",
        "VM {} is being backed up as {} by run '{}' of controller '{}' since {} ({}, by the server's clock)".format(
            title, lease.id, lease.run, lease.controller_id, utc_text(holder.created), since
        ),
        "wait for that run to end; if it is dead its lease ends 30 minutes after its last renewal, or after orphan_after "
        "where it was never renewed",
    )
