# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a snapshot stays open: the real modules, by ansible-playbook, against a simulated ESX host on this machine.

Invariant: the time is what another client of the host sees, not what the modules say of themselves.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List

from tests.lab.control import Control
from tests.lab.simulator import Simulator

from .document import CACHE, write_table
from .image import make_image

SIZES = (512, 2048)  # MiB
AIM = 1.1
VM = "bench"
CAPTION = """Share: seconds from the snapshot's appearance until it is gone, as a second client of the host sees it every {tick:.0f} ms, divided by
vm_archive's `read_seconds`. It holds the end of vm_snapshot, the start of vm_archive (a second module, which logs in and
looks), the reading, and the removal. The host is simulated on the same {cores} cores, and removes at once. Aim: at most {aim}."""


@dataclass(frozen=True)
class Opened:
    """One backup. size: MiB. All else in seconds: of reading, of the snapshot, of its removal."""

    size: int
    read: float
    open: float
    removal: float

    @property
    def share(self) -> float:
        """The snapshot's time as a share of the reading."""
        return self.open / self.read


class Watch:
    """Sees when a VM's first snapshot appears and when the last one is gone."""

    TICK = 0.02

    def __init__(self, control: Control) -> None:
        self._control = control
        self._ended = threading.Event()
        self._seen: List[float] = []
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def seconds(self) -> float:
        """Return for how long a snapshot was seen."""
        return self._seen[-1] - self._seen[0] + self.TICK

    def _look(self) -> None:
        while not self._ended.wait(self.TICK):
            if self._control.state(VM)["snapshots"]:
                self._seen.append(time.monotonic())


def measure(folder: Path, image: Path, size: int) -> Opened:
    """Back up a VM whose disk is the first `size` MiB of an image."""
    disk = folder / "disk.img"
    with image.open("rb") as source, disk.open("wb") as target:
        for _mebibyte in range(size):
            target.write(source.read(1 << 20))
    with Simulator(folder / "esx", "esx", {"datastore1": 3 * size}) as site:
        site.control.create_vm(VM, [{"image": str(disk)}])
        disk.unlink()
        with Watch(site.control) as watch:
            result = _run(site, folder)
    return Opened(
        size, result["read_seconds"], watch.seconds(), result["snapshot_open_seconds"] - result["read_seconds"]
    )


def render(runs: List[Opened]) -> str:
    """Return the table in Markdown."""
    lines = [
        CAPTION.format(tick=1000 * Watch.TICK, cores=len(os.sched_getaffinity(0)), aim=AIM),
        "",
        "| disk MiB | reading s | MiB/s | removal s | around the reading s | snapshot open s | share |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in runs:
        around = run.open - run.read - run.removal
        lines.append(
            f"| {run.size} | {run.read:.1f} | {run.size / run.read:.0f} | {run.removal:.1f} | {around:.1f} "
            f"| {run.open:.1f} | {run.share:.2f} |"
        )
    last = runs[-1]
    needed = (last.open - last.read) / (AIM - 1)
    lines += [
        "",
        f"What surrounds the reading does not grow with the disk, so the aim holds where reading takes {needed:.0f} s or more: "
        f"at this speed, from {needed * last.size / last.read / 1024:.1f} GiB.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure each size, print the table, and write it into the document."""
    image = make_image(CACHE)
    runs = []
    for size in SIZES:
        folder = Path(tempfile.mkdtemp(prefix="vmbackup-bench-"))
        try:
            runs.append(measure(folder, image, size))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(runs[-1], flush=True)
    table = render(runs)
    print(table)
    write_table("snapshot", table)


def _run(site: Simulator, folder: Path) -> Dict[str, Any]:
    """Run both modules as the role does, one after the other, and return what vm_archive answered."""
    vm = {
        "hostname": site.host,
        "port": site.port,
        "username": site.user,
        "password": site.password,
        "validate_certs": False,
        "vm": VM,
        "controller_id": "bench",
        "lock_dir": str(folder / "locks"),
        "mover_is_local": True,
        "backup_id": time.strftime("%Y%m%dT%H%M%SZ-full-0000", time.gmtime()),
    }
    answer = folder / "answer.json"
    tasks = [
        {"vmbackup.esx.vm_snapshot": vm},
        {"vmbackup.esx.vm_archive": {**vm, "destination": str(folder / "staged")}, "register": "packed"},
        {"ansible.builtin.copy": {"content": "{{ packed | to_json }}", "dest": str(answer), "mode": "0600"}},
    ]
    playbook = folder / "play.yml"
    playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    program = Path(sys.executable).parent / "ansible-playbook"
    variables = "ansible_python_interpreter=" + sys.executable
    command = [str(program), "-i", "localhost,", "-c", "local", "-e", variables, str(playbook)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return dict(json.loads(answer.read_text()))


if __name__ == "__main__":
    main()
