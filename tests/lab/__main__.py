# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m tests.lab up | down | status | inventory`: a lab that stays until it is told to go."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from .daemon import started_at
from .site import CHECKOUT, LabSite, stop_site

FOLDER = Path(os.environ.get("VMBACKUP_LAB") or Path(os.environ.get("TMPDIR", "/tmp")) / f"vmbackup-lab-{os.getuid()}")
GUESTS = ("web01", "db01")
MODELS = {"esx1": "esx", "vc1": "vpx"}
USAGE = "usage: python -m tests.lab up | down | status | inventory"


def main(words: list[str]) -> int:
    """Do what the one word says; return the exit code."""
    actions = {"up": up, "down": down, "status": status, "inventory": inventory}
    if len(words) != 1 or words[0] not in actions:
        print(USAGE, file=sys.stderr)
        return 2
    return actions[words[0]]()


def up() -> int:
    """Boot the lab with two guests and say how to use it."""
    stop_site(FOLDER)
    forget()
    FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
    site = LabSite(FOLDER, models=MODELS, attached=False)
    site.start()
    for name in GUESTS:
        site.esx["esx1"].control.create_vm(name, disks=[{"size_mb": 64}])
        site.add_guest(name)
    prepared = site.prepare_store()
    if prepared.returncode != 0:
        print(prepared.stdout + prepared.stderr, file=sys.stderr)
        return 1
    print(f"The lab runs in {FOLDER}, with the guests {', '.join(GUESTS)}. To use it in this checkout:\n")
    print('  eval "$(python3 -m tests.ci.exports)"')
    for name, value in site.environment.items():
        print(f"  export {name}={value}")
    print(f"  ansible-playbook {CHECKOUT / 'playbooks' / 'full_backup.yml'}\n")
    for server in site.esx.values():
        print(f"{server.name} ({server.model}): API {server.hostname}:{server.port}, control {server.control_url}")
    print(f"store: {site.store.address} port {site.store.port}, backups under {site.store_root}")
    print("`make lab-stop` ends it.")
    return 0


def forget() -> None:
    """Remove what an earlier lab left here: its guests are not this one's, and a store refuses to mix them."""
    for name in (*MODELS, "store-root", "staging", "locks", "inventory"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)


def down() -> int:
    print(f"{stop_site(FOLDER)} processes of the lab in {FOLDER} stopped")
    return 0


def status() -> int:
    """Say which of the lab's processes run; 1 when one that should run does not."""
    files = sorted((FOLDER / "pids").glob("*.pid"))
    dead = 0
    for pid_file in files:
        pid, started = pid_file.read_text().split()
        runs = started_at(int(pid)) == started
        dead += not runs
        print(f"{pid_file.stem}: {'runs' if runs else 'does not run'} ({pid})")
    return 0 if files and not dead else 1


def inventory() -> int:
    print(FOLDER / "inventory")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
