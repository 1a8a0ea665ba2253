# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for one's turn on an ESX host and its datastores.

Invariant: of one controller, no two runs count and snapshot at the same time, so the limits hold; a VM waits before it
is snapshotted, never under a snapshot.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Set

from ..core.errors import VmbackupError
from ..core.vm.lease import is_orphan, parse_lease
from .pyvmomi import vim
from .session import Session
from .snapshot_tree import nodes_of

_PAUSE = 5.0
_LOCK_PAUSE = 0.5  # the lock is held for as long as a snapshot takes, a place for as long as a backup


@dataclass(frozen=True)
class Limits:
    """How many VMs with a live snapshot of ours there may be at once; None or 0 sets no limit.

    orphan_after: as is_orphan takes it.
    """

    per_esx_host: Optional[int]
    per_datastore: Optional[int]
    orphan_after: timedelta


@contextmanager
def turn(
    session: Session,
    vm_obj: Any,
    limits: Limits,
    lock_dir: str,
    *,
    wait: float,
    pause: float = _PAUSE,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[float]:
    """Run the block, which takes the snapshot, when it is this VM's turn; give the seconds that were waited.

    wait: seconds after which waiting ends. pause: seconds between looks.
    Raises no_turn.
    """
    start = time.monotonic()
    file = _opened(lock_dir)
    try:
        while True:
            reason, rest = "another run of this controller is taking a snapshot", min(pause, _LOCK_PAUSE)
            if _locked(file):
                reason, rest = crowd(session, vm_obj, limits), pause
                if not reason:
                    yield time.monotonic() - start
                    return
                fcntl.flock(file, fcntl.LOCK_UN)
            if time.monotonic() - start >= wait:
                raise _no_turn(session.title(vm_obj), wait, reason)
            sleep(rest)
    finally:
        os.close(file)


def crowd(session: Session, vm_obj: Any, limits: Limits) -> str:
    """Say which limit is reached by other VMs that carry a live snapshot of ours, or ""."""
    mine, others = _carriers(session, vm_obj, limits.orphan_after)
    host, places = mine.get("runtime.host"), _ids(mine.get("datastore"))
    on_host = sum(1 for each in others if host is not None and each.get("runtime.host") == host)
    if limits.per_esx_host and on_host >= limits.per_esx_host:
        return "{} VMs on its ESX host carry a snapshot of ours (max_per_esx_host={})".format(
            on_host, limits.per_esx_host
        )
    for place in sorted(places):
        on_place = sum(1 for each in others if place in _ids(each.get("datastore")))
        if limits.per_datastore and on_place >= limits.per_datastore:
            return "{} VMs on its datastore {} carry a snapshot of ours (max_per_datastore={})".format(
                on_place, place, limits.per_datastore
            )
    return ""


def _carriers(session: Session, vm_obj: Any, orphan_after: timedelta) -> Any:
    """Return this VM's place, and those of all other VMs with a live snapshot of ours, from one call."""
    now = session.now()
    rows = session.ask(
        "counting the VMs that carry a snapshot of ours",
        lambda: session.client.get_managed_object_references(
            vim.VirtualMachine,
            properties=["runtime.host", "datastore", "snapshot"],
            folder=session.content.rootFolder,
        ),
        True,
    )
    mine: Dict[str, Any] = {}
    others: List[Dict[str, Any]] = []
    for row in rows:
        values = {each.name: each.val for each in row.propSet}
        if row.obj._moId == vm_obj._moId:
            mine = values
        elif any(_is_live(node, now, orphan_after) for node in nodes_of(values.get("snapshot"))):
            others.append(values)
    return mine, others


def _is_live(node: Any, now: datetime, orphan_after: timedelta) -> bool:
    lease = parse_lease(node.name, node.description or "")
    return lease is not None and not is_orphan(lease, node.createTime, now, orphan_after=orphan_after)


def _ids(datastores: Any) -> Set[str]:
    return {each._moId for each in datastores or ()}


def _opened(lock_dir: str) -> int:
    path = Path(lock_dir) / "turns.lock"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise VmbackupError(
            "lock_dir_unusable",
            "The lock file {} cannot be used: {}".format(path, error.strerror),
            "set lock_dir to a folder that the user of this playbook may write",
        ) from error


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _no_turn(title: str, wait: float, reason: str) -> VmbackupError:
    return VmbackupError(
        "no_turn",
        "VM {} waited {:.0f} s for its turn: {}".format(title, wait, reason),
        "raise wait_for_turn, max_per_esx_host or max_per_datastore, or spread the backups over more time",
    )
