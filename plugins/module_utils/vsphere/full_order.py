# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of a full backup."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Callable

from ..core.vm.coverage import CoveragePolicy
from .packing import PackingOptions


@dataclass(frozen=True)
class FullOrder:
    """What is asked of one full backup.

    vm: the name in the store. task_timeout: seconds without progress. scratch: folder for the spilled index. node: the
    mover's name. now: its clock, aware. verify: as Destination.commit takes it. restartable: whether a destination can be
    opened a second time. lock_dir: as remove_snapshot takes it.
    """

    vm: str
    backup_id: str
    run: str
    controller_id: str
    policy: CoveragePolicy
    quiesce: str
    task_timeout: float
    packing: PackingOptions
    scratch: str
    collection_version: str
    node: str
    now: Callable[[], datetime]
    verify: bool
    restartable: bool
    lock_dir: str = ""
