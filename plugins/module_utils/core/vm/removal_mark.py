# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mark of a removal of ours that was not seen through: one file per VM, in this node's lock folder.

Invariant: a mark stands from just before the removal of a snapshot of ours, when no disk needed consolidation, until that
removal was verified. It proves nothing to another node or lock folder, and what is unclear proves nothing.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Iterable, List, NamedTuple, Optional

_MOST = 1 << 20


class RemovalMark(NamedTuple):
    """A removal that was begun. others: ids of the snapshots that stay, as they stood then."""

    backup_id: str
    others: List[str]


def set_mark(lock_dir: str, instance_uuid: str, backup_id: str, others: Iterable[str]) -> None:
    """Note that the snapshot of a backup is about to be removed; others: ids of the VM's snapshots that stay.

    A mark that cannot be written is left out: the removal must not wait for it.
    """
    path = _path(lock_dir, instance_uuid)
    content = {"backup_id": backup_id, "instance_uuid": instance_uuid, "others": sorted(others)}
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(json.dumps(content, sort_keys=True), encoding="utf-8")
        os.replace(str(fresh), str(path))


def clear_mark(lock_dir: str, instance_uuid: str) -> None:
    """Forget the mark of a VM: its disks are as they should be."""
    with suppress(OSError):
        _path(lock_dir, instance_uuid).unlink()


def read_mark(lock_dir: str, instance_uuid: str) -> Optional[RemovalMark]:
    """Return the mark of a VM; None where there is none, or it cannot be understood."""
    try:
        with _path(lock_dir, instance_uuid).open(encoding="utf-8") as file:
            content = json.loads(file.read(_MOST))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("instance_uuid") != instance_uuid:
        return None
    backup_id, others = content.get("backup_id"), content.get("others")
    if not isinstance(backup_id, str) or not isinstance(others, list):
        return None
    return RemovalMark(backup_id, others)


def _path(lock_dir: str, instance_uuid: str) -> Path:
    return Path(lock_dir) / "{}.removal".format(instance_uuid.lower().replace("/", "_"))
