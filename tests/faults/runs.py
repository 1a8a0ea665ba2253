# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A playbook in the background, and the processes that it starts: to be signalled, outlived and looked for.

Invariant: whatever a test does, `close` ends every process that the run started.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote

from tests.lab.daemon import started_at
from tests.lab.site import CHECKOUT, LabSite

T = TypeVar("T")
BIN = Path(sys.executable).parent
OWN_FILES = ("archive.tar.gz", "turns.lock")  # in a folder that is named as the VM, open while a module works on it
NOTHING: Mapping[str, Any] = MappingProxyType({})


def until(what: str, look: Callable[[], T], timeout: float = 90.0, told: Callable[[], str] = str) -> T:
    """Poll until `look` gives something true and return it; told: gives more words for the failure."""
    end = time.monotonic() + timeout
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"{what} did not come to be in {timeout} s\n{told()}"
        time.sleep(0.1)


def playbook_argv(*playbooks: str, args: Sequence[str] = (), variables: Mapping[str, Any] = NOTHING) -> list[str]:
    """Return the command that runs playbooks (file names in playbooks/). args: such as "--limit", name."""
    extra = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
    return [str(BIN / "ansible-playbook"), *(str(CHECKOUT / "playbooks" / each) for each in playbooks), *args, *extra]


def job_argv(playbook_command: Sequence[str], folder: Path) -> list[str]:
    """Return the command that runs a playbook as AWX does, by ansible-runner. SIGTERM cancels the job."""
    _program, playbook, *args = playbook_command
    return [str(BIN / "ansible-runner"), "run", str(folder), "-p", playbook, "--cmdline", shlex.join(args)]


class Run:
    """A command in the lab's environment. folder: for its output."""

    def __init__(self, lab: LabSite, folder: Path, argv: Sequence[str]) -> None:
        self._log = folder / f"run-{time.monotonic_ns()}.log"
        self._seen: dict[int, str] = {}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                argv,
                env={**os.environ, **lab.environment, "PATH": f"{BIN}:{os.environ['PATH']}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_heed_signals,
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def until(self, what: str, look: Callable[[], T], timeout: float = 90.0) -> T:
        """Poll as the function does, and fail at once when the playbook has ended."""

        def still() -> T:
            self.living()
            found = look()
            assert found or self.process.poll() is None, f"the run ended before {what}\n{self.output}"
            return found

        return until(what, still, timeout, lambda: self.output)

    def wait(self, timeout: float = 120.0) -> int:
        """Wait for the command itself and return its exit code, negative for a signal."""
        return self.process.wait(timeout)

    def living(self) -> set[int]:
        """Return the pids of what it started, at any depth, and what was seen of that before and lives on."""
        for pid in descendants(self.process.pid, *self._seen):
            self._seen.setdefault(pid, started_at(pid) or "")
        return {pid for pid, started in self._seen.items() if started_at(pid) == started}

    def module(self, name: str, vm: str = "") -> int:
        """Return the pid of a running module, 0 if there is none; vm: the one that has a file of that VM open."""
        return find_module(self.living(), name, vm)

    def close(self) -> None:
        """End all of it."""
        for pid in (self.process.pid, *self.living()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


def _heed_signals() -> None:
    """Take back what a shell made of signals: under nohup, SIGHUP would be ignored all the way down."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def descendants(*roots: int) -> Iterator[int]:
    """Yield the processes below some, at any depth."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    waiting = list(roots)
    while waiting:
        for child in parents.pop(waiting.pop(), []):
            yield child
            waiting.append(child)


def find_module(pids: Iterable[int], name: str, vm: str = "") -> int:
    """Return which of some processes is a module, 0 if none is; vm: the one that has a file of that VM open."""
    for pid in pids:
        words = _words(pid)
        if len(words) > 1 and words[1].endswith(f"AnsiballZ_{name}.py") and (not vm or _has_open(pid, vm)):
            return pid
    return 0


def _words(pid: int) -> list[str]:
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
    except OSError:
        return []


def _has_open(pid: int, vm: str) -> bool:
    """Tell whether a process has a file of its own of a VM's backup open."""
    part = f"/{quote(vm, safe='')}/"
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if part in str(entry.readlink()) and entry.readlink().name in OWN_FILES:
                    return True
    return False
