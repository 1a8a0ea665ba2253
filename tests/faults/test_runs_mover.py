# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Movers that are away, are lost while they pack, or have no room left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.opened_backup import committed, incoming
from tests.lab.fixtures import LabVm
from tests.lab.keys import KeyPair
from tests.lab.site import LabSite
from tests.lab.sshd import SshServer, free_port

from .runs import Run, descendants, find_module, playbook_argv, until
from .stages import NO_LIMITS, Make, Stages, limit, names, ours, results


class Mover:
    """A node that packs, behind an OpenSSH server on this machine; its link can go dead without a word."""

    def __init__(self, lab: LabSite) -> None:
        self.server = SshServer(lab.folder / "mover", "mover", namespace=None, attached=True)
        self.server.enrol(KeyPair(lab.folder / "keys" / "admin"))
        self.server.start()
        self._frozen: list[int] = []

    def freeze(self) -> None:
        """Stop the server and its sessions where they stand; what runs in them goes on."""
        pids = [self.server.pid, *(pid for pid in descendants(self.server.pid) if is_sshd(pid))]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        self._frozen = pids

    def stop(self) -> None:
        for pid in self._frozen:
            os.kill(pid, signal.SIGCONT)
        self.server.cut_link()


def is_sshd(pid: int) -> bool:
    return Path(f"/proc/{pid}/exe").resolve().name.startswith("sshd")


@pytest.fixture
def movers(lab: LabSite) -> Iterator[Mover]:
    """Put two movers into the inventory: `mover`, and `away`, where nobody listens."""
    mover = Mover(lab)
    known = lab.folder / "mover" / "known_hosts"
    known.write_text(mover.server.known_hosts_line + "\n")

    def login(port: int) -> dict[str, Any]:
        return {
            "ansible_host": mover.server.address,
            "ansible_port": port,
            "ansible_user": mover.server.user,
            "ansible_ssh_private_key_file": str(lab.folder / "keys" / "admin"),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={known} -o ConnectTimeout=3 "
            "-o ServerAliveInterval=1 -o ServerAliveCountMax=2",
            "ansible_python_interpreter": sys.executable,
        }

    hosts = {"mover": login(mover.server.port), "away": login(free_port())}
    inventory = lab.inventory.folder / "movers.yml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    yield mover
    inventory.unlink()
    mover.stop()


def test_a_mover_that_is_away_or_lost_while_it_packs_costs_its_own_vms_only(
    lab: LabSite, fresh_vm: Make, movers: Mover, tmp_path: Path
) -> None:
    """What is packed from disks that no longer stand still, on a lost mover or here, is never committed."""

    def vm(**variables: Any) -> LabVm:
        more = {**NO_LIMITS, "vmbackup_esx_validate_certs": False, **variables}  # the lab's CA is the controller's
        made = fresh_vm(disks=[{"size_mb": 4, "fill_mb": 4}], power="on", variables=more)
        made.control.snapshot(made.name, "user's own")  # keeps the base readable when ours is gone
        return made

    def packs() -> int:
        return find_module(descendants(movers.server.pid), "vm_archive", lost.name)

    lost, away, robbed, good = vm(vmbackup_mover="mover"), vm(vmbackup_mover="away"), vm(), vm()
    staging = lab.folder / "staging"
    with ExitStack() as stack:
        stack.callback(lost.control.clear_faults)
        for each in (lost, robbed):
            lost.control.fault("stall", method="GET", path=f"{each.name}-flat.vmdk", after_bytes=1 << 20)
        run = Run(lab, tmp_path, playbook_argv("full_backup.yml", args=limit(lost, away, robbed, good)))
        stack.callback(run.close)
        orphan = run.until("the mover packs", packs)
        run.until("the controller packs", lambda: run.module("vm_archive", robbed.name))
        movers.freeze()
        robbed.control.remove_snapshot(robbed.name, ours(robbed)[0])
        run.until("the role has removed the lost mover's snapshot", lambda: not ours(lost))
        assert packs() == orphan
        lost.control.clear_faults()
        assert run.wait() == 2, run.output
        until("the orphan has ended", lambda: not packs(), 40)
    for each, why in (
        (lost, "The mover mover became unreachable"),
        (away, "The mover away became unreachable"),
        (robbed, "was removed by somebody else while its disks were read"),
    ):
        status, message = results(run)[each.name]
        assert status == "FAILED" and why in message, run.output
        assert committed(staging, each.name) == [] and committed(lab.store_root, each.name) == []
        assert incoming(staging, each.name) == [] and names(each) == ["user's own"]
    assert results(run)[good.name][0] == "OK"
    assert len(committed(lab.store_root, good.name)) == 1


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of 1 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a file system of its own needs root's right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_of_the_mover_is_named_and_leaves_nothing(
    lab: LabSite, fresh_vm: Make, tmp_path: Path, tiny: Path
) -> None:
    stages = Stages(lab, fresh_vm, tmp_path)
    vm = stages.add("packing", vmbackup_staging_dir=str(tiny))
    run = stages.play("full_backup.yml", on=[vm], rc=2)
    status, message = results(run)[vm.name]
    assert status == "FAILED" and str(tiny) in message and "No space" in message
    assert '"code": "store_full"' in run.output
    assert ours(vm) == [] and committed(tiny, vm.name) == [] and incoming(tiny, vm.name) == []
