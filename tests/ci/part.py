# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One part of the checks: runs its commands, keeps their output, counts what passed.

A test of pytest counts as one; every other command counts as one.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from .places import CHECKOUT, environment
from .venvs import NoPython

# Seconds after which a command counts as hung.
LIMIT = 1200
COUNT = re.compile(r"(\d+) (passed|failed|error)")
NO_TESTS = 5  # pytest's exit code


@dataclass
class Part:
    """What a part has done so far."""

    name: str
    passed: int = 0
    failed: int = 0
    seconds: float = 0.0
    output: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def sh(
        self,
        *argv: str | Path,
        cwd: Path = CHECKOUT,
        env: Mapping[str, str] | None = None,
        judge: Callable[[int, str], bool] = lambda code, _output: code == 0,
    ) -> bool:
        """Run a command to its end; count it as passed or failed by `judge` of its exit code and output."""
        code, text = self._run([str(word) for word in argv], cwd, env)
        good = judge(code, text)
        self.passed += good
        self.failed += not good
        return good

    def pytest(self, *argv: str | Path, env: Mapping[str, str] | None = None, python: Path | None = None) -> None:
        """Run pytest; count its tests and note its closing line. No test at all counts as one failure."""
        words = [str(python or "python"), "-m", "pytest", "-q", "-ra", *(str(word) for word in argv)]
        code, text = self._run(words, CHECKOUT, env)
        closing = text.strip().rpartition("\n")[2].strip("= ")
        counts = {what: int(number) for number, what in COUNT.findall(closing)}
        bad = counts.get("failed", 0) + counts.get("error", 0)
        self.passed += counts.get("passed", 0)
        self.failed += bad or int(code != 0)
        self.notes.append(closing)
        self.notes += [line for line in text.splitlines() if line.startswith("SKIPPED")]

    def skip(self, reason: str) -> None:
        self.notes.append(f"skipped: {reason}")

    def _run(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str] | None) -> tuple[int, str]:
        try:
            done = subprocess.run(
                argv,
                cwd=cwd,
                env=dict(env or environment()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=LIMIT,
                check=False,
            )
            code, text = done.returncode, done.stdout
        except subprocess.TimeoutExpired as error:
            printed = error.stdout or b""
            said = printed.decode(errors="replace") if isinstance(printed, bytes) else printed
            code, text = 124, f"{said}\nno end after {LIMIT} s\n"
        self.output.append(f"$ {' '.join(argv)}\n{text}[exit code {code}]\n")
        return code, text


def run_part(name: str, body: Callable[[Part], None]) -> Part:
    """Run a part; whatever stops it counts as one failure of it, a missing Python as a skip."""
    part, start = Part(name), time.monotonic()
    try:
        body(part)
    except NoPython as error:
        part.skip(str(error))
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        part.failed += 1
        part.output.append(f"{type(error).__name__}: {error}\n")
    part.seconds = time.monotonic() - start
    return part
