# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things of one VM stand in a store or staging folder.

Invariant: every path made here is the root plus components that names.py has checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import List

from .names import INCOMING, RECORDS, folder_name, is_backup_id, parse_backup_id


class VmFolder:
    """The folder of one VM; raises vm_name_invalid."""

    def __init__(self, root: str, vm: str) -> None:
        self.vm = vm
        self.path = Path(root) / folder_name(vm)
        self.records = self.path / RECORDS
        self.incoming_root = self.path / INCOMING

    def committed(self, backup_id: str) -> Path:
        """Return where a backup stands once it is committed; raises backup_id_invalid."""
        parse_backup_id(backup_id)
        return self.path / backup_id

    def incoming(self, backup_id: str) -> Path:
        """Return where a backup grows; raises backup_id_invalid."""
        parse_backup_id(backup_id)
        return self.incoming_root / backup_id

    def lock(self, backup_id: str) -> Path:
        """Return the lock file of a backup's writer; raises backup_id_invalid."""
        parse_backup_id(backup_id)
        return self.incoming_root / (backup_id + ".lock")

    def committed_ids(self) -> List[str]:
        """Return the ids of committed backups, sorted."""
        names = [entry.name for entry in self.path.iterdir()] if self.path.is_dir() else []
        return sorted(name for name in names if not name.startswith("."))

    def growing_ids(self) -> List[str]:
        """Return the ids that have a growing folder or a writer's lock, sorted; what is not ours is passed over."""
        entries = list(self.incoming_root.iterdir()) if self.incoming_root.is_dir() else []
        ids = {entry.name.partition(".")[0] for entry in entries}  # an id has no dot, its lock ends in one and a word
        return sorted(each for each in ids if is_backup_id(each))
