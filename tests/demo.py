# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo`: a site on this machine, a full and an incremental backup by the real playbooks, and the proof of both.

Invariant: what it says was compared was compared here, with plain tools; it exits with 0 only if all of it held.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from .demo_files import GuestFolder
from .lab.images import ext4_image
from .lab.site import CHECKOUT, LabSite
from .lab.witness import Witness

WRITERS = ("web01", "db01")


def main() -> int:
    """Run the demonstration; return the exit code."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vmbackup-demo-") as folder:
        say("1. Booting a site: a simulated ESX host, a store behind OpenSSH, three VMs with real file systems")
        with LabSite(Path(folder)) as site:
            files = GuestFolder(Path(folder) / "guest")
            make_vms(site, Path(folder), files)
            prepared = site.prepare_store()
            if prepared.returncode:
                print(prepared.stdout + prepared.stderr)
                return 1
            play(site, "guest_setup.yml", "--limit", "web01")
            watched = back_up(site)
            held = [check(site, name, witness) for name, witness in watched.items()]
            held.append(bool(watched) and check_files(site, files))
    good = bool(held) and all(held)
    say("{} after {:.0f} s.".format("All of it held" if good else "IT DID NOT HOLD", time.monotonic() - started))
    return 0 if good else 1


def make_vms(site: LabSite, folder: Path, files: GuestFolder) -> None:
    """Make web01 and db01, which run and write, and files01, which is powered off. files: web01's, by SSH."""
    control = site.esx["esx1"].control
    images = [str(ext4_image(folder / f"guest{seed}.img", 64, seed)) for seed in (1, 2, 3, 4)]
    control.create_vm("web01", disks=[{"image": images[0]}], power="on")
    control.create_vm(
        "db01",
        disks=[
            {"image": images[1]},
            {"image": images[2], "controller": "nvme", "datastore": "datastore2", "thin": False},
        ],
        power="on",
    )
    control.snapshot("db01", "before the upgrade")  # a user's own: it must survive
    control.create_vm("files01", disks=[{"image": images[3], "controller": "sata"}], power="off")
    site.add_guest("web01", vmbackup_baseline=True, vmbackup_file_paths=[str(files.path)])
    for name in ("db01", "files01"):
        site.add_guest(name)


def back_up(site: LabSite) -> dict[str, Witness]:
    """Run the playbook while the guests write; print its summary and what it cost the guests.

    Returns each VM's witness, or nothing when the playbook failed.
    """
    control, watched = site.esx["esx1"].control, {}
    say("2. Backing up all three by playbooks/full_backup.yml, while web01 and db01 write without pause")
    with ExitStack() as stack:
        for name in (*WRITERS, "files01"):
            watched[name] = stack.enter_context(Witness(control, name))
        for name in WRITERS:
            control.start_writer(name)
        good = play(site, "full_backup.yml")
        for name in WRITERS:
            told = control.stop_writer(name)
            print(
                "   {}: {} writes went on, the longest waited {:.0f} ms".format(
                    name, told["writes"], told["max_stall_ms"]
                )
            )
    return watched if good else {}


def play(site: LabSite, playbook: str, *arguments: str) -> bool:
    """Run a playbook and print its summary, or all of its output where it failed."""
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), str(CHECKOUT / "playbooks" / playbook), *arguments]
    done = subprocess.run(argv, env={**os.environ, **site.environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout + done.stderr)
        return False
    print("\n".join("   " + line for line in summary_of(done.stdout)))
    return True


def summary_of(output: str) -> list[str]:
    """Return the lines of the playbook's summary, which Ansible prints as JSON."""
    shown = output.partition("Show each VM's result")[2].partition("=> ")[2]
    lines: list[str] = json.JSONDecoder().raw_decode(shown)[0]["msg"]
    return lines


def check(site: LabSite, name: str, witness: Witness) -> bool:
    """Open a VM's full with plain tools and compare it with the disks at the moment of the snapshot."""
    (backup,) = (site.store_root / name).glob("*-full-*")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=backup, check=True)
        subprocess.run(["tar", "xzf", str(backup / "archive.tar.gz"), "-C", folder], check=True)
        unpacked = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).rglob("*-flat.vmdk"))
        vmx = next(Path(folder).rglob("*.vmx")).read_text()
    state = site.esx["esx1"].control.state(name)
    wanted = sorted(expected(site, name, witness, backup.name))
    left = [each["name"] for each in state["snapshots"]]
    rows = {
        "sha256sum -c and tar xzf read it": True,
        f"{len(wanted)} disk(s) equal the VM's at the snapshot, byte for byte": unpacked == wanted,
        "the .vmx names the archive's own disks": "-00000" not in vmx,
        "no snapshot of ours is left; the user's are: {}".format(left or "none"): not [
            n for n in left if "vmbackup" in n
        ],
    }
    say(f"3. {name}: {backup}")
    return told(rows)


def check_files(site: LabSite, files: GuestFolder) -> bool:
    """Let users work in web01, back up what they changed, and compare that with plain tools."""
    say(
        "4. The users of web01 write, edit, rename and delete; playbooks/incremental_backup.yml saves just that, over SSH"
    )
    files.work()
    if not play(site, "incremental_backup.yml", "--limit", "web01"):
        return False
    (backup,) = (site.store_root / "web01").glob("*-incremental-*")
    told_of = json.loads((backup / "manifest.json").read_text())
    say(f"5. web01: {backup}")
    return told(
        {
            "it stands on the full: {}".format(told_of["parent"]): "-full-" in told_of["parent"],
            "{files_saved} of {entries} entries saved, {deleted} deleted".format(**told_of["changes"]): True,
            "the folder of before, with it over that, equals the guest's, byte for byte": files.matches(backup),
        }
    )


def told(rows: dict[str, bool]) -> bool:
    """Print what was looked at; return whether all of it held."""
    for text, held in rows.items():
        print("   {}  {}".format("yes" if held else "NO ", text))
    return all(rows.values())


def expected(site: LabSite, name: str, witness: Witness, backup_id: str) -> list[str]:
    """Return the digests of the disks: at the snapshot, or now for a VM that is powered off."""
    if name in WRITERS:
        return witness.digests[f"vmbackup-{backup_id}"]
    control = site.esx["esx1"].control
    return [control.sha256(name, disk) for disk in range(len(control.state(name)["disks"]))]


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
