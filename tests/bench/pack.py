# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packing, side by side with what people would use instead, in one run.

Invariant: figures in docs/performance.md come from here; ratios of medians over interleaved rounds, ours / peer.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List

from .document import CACHE, write_table
from .image import make_image

PEERS = {
    "tar, gzip -6": "gzip -6",
    "tar, gzip -1": "gzip -1",
    "tar, pigz -1": "pigz -1",
    "tar, zstd -1 -T2": "zstd -q -1 -T2",
    "tar, igzip -1 -T2": "igzip -1 -T 2",
}
OURS = {"vmbackup, isal": "isal", "vmbackup, standard library": "zlib"}


@dataclass(frozen=True)
class Cost:
    """One run. wall, cpu: seconds, cpu of all processes. size: bytes. memory: MiB, of the largest process."""

    wall: float
    cpu: float
    size: int
    memory: float


def main(rounds: int) -> None:
    """Measure `rounds` rounds, print the table, and write it into the document."""
    image = make_image(CACHE)
    commands = _commands(image)
    with image.open("rb", buffering=0) as file:  # every round reads from memory
        while file.read(1 << 24):
            pass
    runs: Dict[str, List[Cost]] = {name: [] for name in commands}
    for number in range(rounds):
        for name, command in commands.items():
            runs[name].append(measure(command, CACHE / "out"))
            print(f"round {number + 1}: {name}: {runs[name][-1]}", flush=True)
    table = render({name: _median(costs) for name, costs in runs.items()}, image, rounds)
    print(table)
    write_table("packing", table)


def measure(command: List[str], out: Path) -> Cost:
    """Run one command that writes `out`, and return its cost with that of its children."""
    out.unlink(missing_ok=True)
    started = time.monotonic()
    process = subprocess.Popen(command)
    _pid, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} failed with {process.returncode}")
    cost = Cost(wall, usage.ru_utime + usage.ru_stime, out.stat().st_size, usage.ru_maxrss / 1024)
    out.unlink()
    return cost


def render(costs: Dict[str, Cost], image: Path, rounds: int) -> str:
    """Return the tables in Markdown."""
    size, stored = image.stat().st_size, image.stat().st_blocks * 512
    lines = [
        f"An ext4 image of {size >> 20} MiB with {100 - 100 * stored // size} % holes, {len(os.sched_getaffinity(0))} cores, "
        f"Python {sys.version.split()[0]}, everything in memory; medians of {rounds} interleaved rounds.",
        "",
        "| | wall s | CPU s | MiB | memory of the largest process, MiB |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, c in costs.items():
        lines.append(f"| {name} | {c.wall:.2f} | {c.cpu:.2f} | {c.size / (1 << 20):.0f} | {c.memory:.0f} |")
    for ours in (name for name in OURS if name in costs):
        mine = costs[ours]
        lines += [
            "",
            f"Ratios, {ours} / peer (below 1 is better):",
            "",
            "| peer | wall | CPU | size |",
            "| --- | --- | --- | --- |",
        ]
        for name in (name for name in PEERS if name in costs):
            c = costs[name]
            lines.append(f"| {name} | {mine.wall / c.wall:.3f} | {mine.cpu / c.cpu:.3f} | {mine.size / c.size:.2f} |")
    return "\n".join(lines)


def _commands(image: Path) -> Dict[str, List[str]]:
    commands = {}
    for name, compressor in PEERS.items():
        if shutil.which(compressor.split()[0]):
            line = f"set -o pipefail; tar -C {image.parent} -cf - {image.name} | {compressor} > {CACHE / 'out'}"
            commands[name] = ["bash", "-c", line]
        else:
            print(f"left out: {name} (not installed)")
    alone = str(Path(__file__).with_name("pack_alone.py"))
    for name, codec in OURS.items():
        if codec == "zlib" or not subprocess.run([sys.executable, "-c", "import isal"], check=False).returncode:
            commands[name] = [sys.executable, alone, str(image), str(CACHE / "out"), codec]
    return commands


def _median(costs: List[Cost]) -> Cost:
    return Cost(
        statistics.median(c.wall for c in costs),
        statistics.median(c.cpu for c in costs),
        costs[0].size,
        max(c.memory for c in costs),
    )
