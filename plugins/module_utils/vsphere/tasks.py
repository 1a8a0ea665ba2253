# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for a vSphere task.

Invariant: the wait ends: with the task, or when it has made no progress for a given time, or when the server has been
away for that time. How long a task that goes on may take is nobody's business.
"""

from __future__ import annotations

import time
from typing import Any, Callable

from ..core.errors import VmbackupError
from .faults import told
from .pyvmomi import vim
from .session import Session

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 3.0


def wait_task(
    session: Session,
    task: Any,
    what: str,
    *,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Any:
    """Wait until a task ends and return its result.

    what: what the task does and to which object.
    timeout: seconds without any progress (of state or percentage) after which the task counts as hung.
    Raises task_stalled, the fault of the task, or esx_unreachable when the server stays away for `timeout` seconds.
    """
    seen: Any = None
    moved, pause = clock(), _FIRST_PAUSE
    while True:
        info = _info(session, task, what, clock() - moved < timeout)
        if info is not None:
            if info.state == vim.TaskInfo.State.success:
                return info.result
            if info.state == vim.TaskInfo.State.error:
                raise told(what, info.error)
            if (info.state, info.progress) != seen:
                seen, moved = (info.state, info.progress), clock()
        if info is not None and clock() - moved >= timeout:
            raise _stalled(what, seen, timeout)
        sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def _info(session: Session, task: Any, what: str, patient: bool) -> Any:
    """Read the task's state, or None when the server cannot be asked just now."""
    try:
        return session.ask(what, lambda: task.info)
    except VmbackupError as error:
        if error.code == "esx_unreachable" and patient:
            return None
        raise


def _stalled(what: str, seen: Any, timeout: float) -> VmbackupError:
    return VmbackupError(
        "task_stalled",
        "{}: the task made no progress for {:.0f} s (it is {} at {})".format(
            what, timeout, seen[0], "{} %".format(seen[1]) if seen[1] is not None else "an unknown percentage"
        ),
        "look at the ESX host's tasks and storage; task_timeout sets how long a task may stand still",
    )
