# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's processes and their pid files.

Invariant: what the lab started is named in a pid file with its start time, so that a later `lab-stop` ends just that
process and never a stranger that was given the same number.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable

PR_SET_PDEATHSIG = 1
STOP_AFTER = 5.0  # seconds between SIGTERM and SIGKILL


class Daemon:
    """A process with a pid file and a log; attached ones die with the process that started them."""

    def __init__(self, name: str, folder: Path, *, attached: bool) -> None:
        self.pid_file = folder / "pids" / f"{name}.pid"
        self.log = folder / "logs" / f"{name}.log"
        self.attached = attached
        self.pid = 0
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)

    def start(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Start it in a session of its own; its output goes to the log."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=None if env is None else dict(env),
                preexec_fn=_die_with_parent if self.attached else None,
            )
        self.pid = process.pid
        self.pid_file.write_text(f"{process.pid} {started_at(process.pid)}\n")

    def wait_until(self, ready: Callable[[], bool], timeout: float = 20.0) -> None:
        """Wait until it is ready; raise RuntimeError with its log when it died or took too long (seconds)."""
        end = time.monotonic() + timeout
        while not ready():
            if started_at(self.pid) is None or time.monotonic() > end:
                raise RuntimeError(f"{self.pid_file.stem} did not start:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.02)

    def stop(self) -> None:
        stop_recorded(self.pid_file)


def stop_recorded(pid_file: Path) -> bool:
    """End the process that a pid file names, with its whole session; tell whether it was there."""
    try:
        pid_text, started = pid_file.read_text().split()
    except (FileNotFoundError, ValueError):
        return False
    pid = int(pid_text)
    alive = started_at(pid) == started
    if alive:
        _end(pid, started)
    pid_file.unlink(missing_ok=True)
    return alive


def started_at(pid: int) -> str | None:
    """Return the start time of a live process in clock ticks since boot, None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def _end(pid: int, started: str) -> None:
    end = time.monotonic() + STOP_AFTER
    _signal(pid, signal.SIGTERM)
    while started_at(pid) == started and time.monotonic() < end:
        time.sleep(0.02)
    _signal(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):  # another process started it
        os.waitpid(pid, 0)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
