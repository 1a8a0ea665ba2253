# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding that nothing changed, side by side with what people would use instead, in one run.

Invariant: figures in docs/performance.md come from here; ratios of medians over interleaved rounds, ours / peer. Everything
is in memory: a first, unmeasured run of each prepares its state and warms the caches.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .document import CACHE, write_table

FILES, FOLDERS = 1_000_000, 10_000
PART = FOLDERS // 5  # for those that read every file in their first run
OURS = "vmbackup"


@dataclass(frozen=True)
class Cost:
    """One run. wall, cpu: seconds, cpu of all processes. memory: MiB, of the largest process."""

    wall: float
    cpu: float
    memory: float


def main(rounds: int) -> None:
    """Measure both trees, print the tables, and write them into the document."""
    tree, part = make_trees(CACHE)
    state = CACHE / "scan"
    state.mkdir(exist_ok=True)
    tables = [
        render(f"{FILES:,} files", compare(of_stat(tree, state), rounds), rounds, CACHE / "scan" / "tree.idx"),
        render(f"{FILES // 5:,} files", compare(of_store(part, state), rounds), rounds, CACHE / "scan" / "part.idx"),
    ]
    table = "\n\n".join(tables)
    print(table)
    write_table("scanning", table)
    shutil.rmtree(state)


def make_trees(folder: Path) -> tuple[Path, Path]:
    """Make the tree and its fifth, and a copy by links for rsync, unless they are there."""
    tree, part, copy = folder / "tree", folder / "part", folder / "copy"
    if not copy.exists():
        for root, count in ((tree, FOLDERS), (part, PART)):
            for number in range(count):
                below = root / f"{number // 100:03}" / f"{number % 100:02}"
                below.mkdir(parents=True, exist_ok=True)
                for file in range(FILES // FOLDERS):
                    (below / f"document-{file:03}.txt").write_bytes(b"%d" % file)
        subprocess.run(["cp", "-al", str(tree), str(copy)], check=True)
        time.sleep(3)  # what is touched within two seconds of a scan counts as changed
    return tree, part


def ours(tree: Path, index: Path) -> list[str]:
    script = str(Path(__file__).with_name("scan_alone.py"))
    if not index.exists():
        subprocess.run([sys.executable, script, str(tree), "-", str(index)], check=True)
    return [sys.executable, script, str(tree), str(index), str(index) + ".new"]


def of_stat(tree: Path, state: Path) -> dict[str, list[str]]:
    """Return the commands that look at every file and read none; each has run once."""
    stamp = state / "stamp"
    stamp.touch()
    snar = state / "snar"
    tar = ["tar", "-cf", "/dev/null", f"--listed-incremental={snar}", str(tree)]
    subprocess.run(tar, check=True, stderr=subprocess.DEVNULL)
    return {
        OURS: ours(tree, state / "tree.idx"),
        "find -newer": ["find", str(tree), "-newer", str(stamp)],
        "find -printf": ["find", str(tree), "-printf", "%p %s %T@ %C@ %i %m\\n"],
        "tar --listed-incremental": tar,
        "rsync -an": ["rsync", "-an", f"{tree}/", f"{tree.parent / 'copy'}/"],
    }


def of_store(part: Path, state: Path) -> dict[str, list[str]]:
    """Return the commands of backup programs that keep a store of their own; each has run once."""
    borg, restic = state / "borg", state / "restic"
    os.environ.update(
        RESTIC_PASSWORD="bench",
        RESTIC_CACHE_DIR=str(state / "restic-cache"),
        BORG_BASE_DIR=str(state / "borg-base"),
        BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK="yes",
    )
    subprocess.run(["restic", "-q", "-r", str(restic), "init"], check=True)
    subprocess.run(["borg", "init", "-e", "none", str(borg)], check=True)
    restic_run = ["restic", "-q", "-r", str(restic), "backup", str(part)]
    borg_run = ["borg", "create", f"{borg}::{{now:%H%M%S.%f}}", str(part)]
    for command in (restic_run, borg_run):
        subprocess.run(command, check=True)
    return {OURS: ours(part, state / "part.idx"), "restic, second run": restic_run, "borg, second run": borg_run}


def compare(commands: Mapping[str, list[str]], rounds: int) -> dict[str, Cost]:
    """Run each command in turn, `rounds` times; return medians."""
    runs: dict[str, list[Cost]] = {name: [] for name in commands}
    for number in range(rounds):
        for name, command in commands.items():
            runs[name].append(measure(command))
            print(f"round {number + 1}: {name}: {runs[name][-1]}", flush=True)
    return {
        name: Cost(*(statistics.median(getattr(cost, field) for cost in costs) for field in ("wall", "cpu", "memory")))
        for name, costs in runs.items()
    }


def measure(command: list[str]) -> Cost:
    """Run one command and return its cost with that of its children."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _pid, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} failed with {process.returncode}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def render(what: str, costs: Mapping[str, Cost], rounds: int, index: Path) -> str:
    """Return a table in Markdown. index: ours, for its size."""
    mine = costs[OURS]
    lines = [
        f"A tree of {what}, nothing changed, {len(os.sched_getaffinity(0))} cores, Python {sys.version.split()[0]}, one process, "
        f"everything in memory; medians of {rounds} interleaved rounds. Index: {index.stat().st_size / 1e6:.1f} MB.",
        "",
        "| | wall s | CPU s | MiB | ours / this, wall | ours / this, CPU |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, cost in costs.items():
        ratios = f"{mine.wall / cost.wall:.2f} | {mine.cpu / cost.cpu:.2f}" if name != OURS else " | "
        lines.append(f"| {name} | {cost.wall:.2f} | {cost.cpu:.2f} | {cost.memory:.0f} | {ratios} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
