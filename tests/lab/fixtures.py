# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pytest fixtures: `lab` (one site for the whole run), `fresh_vm` (a VM and its guest), `play` (ansible-playbook).

VMBACKUP_TEST_ANSIBLE names the bin folder of another ansible-core to run the playbooks with.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest

from .control import Control
from .site import CHECKOUT, LabSite

MODELS = {"esx1": "esx", "vc1": "vpx"}


@dataclass(frozen=True)
class LabVm:
    """A VM of a test: its name in vSphere and in the inventory, and the simulator that it is on."""

    name: str
    esx: str
    control: Control

    def state(self) -> dict[str, Any]:
        """Return the truth about it, from its disks and files."""
        return dict(self.control.state(self.name))


@dataclass(frozen=True)
class Played:
    """What a run of ansible-playbook came to."""

    rc: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


@pytest.fixture(scope="session")
def lab() -> Iterator[LabSite]:
    """Boot a site with an ESX host (esx1) and a vCenter (vc1), its store prepared by the role."""
    folder = Path(tempfile.mkdtemp(prefix="vmbackup-lab-"))
    with LabSite(folder, models=MODELS) as site:
        prepared = site.prepare_store()
        assert prepared.returncode == 0, prepared.stdout + prepared.stderr
        yield site
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def fresh_vm(lab: LabSite) -> Iterator[Callable[..., LabVm]]:
    """Return make(name=None, esx="esx1", variables=None, **spec): a VM as Control.create_vm makes it, in the inventory."""
    made: list[LabVm] = []
    numbers = itertools.count(1)

    def make(name: str | None = None, esx: str = "esx1", variables: dict[str, Any] | None = None, **spec: Any) -> LabVm:
        vm = LabVm(name or f"vm{os.urandom(2).hex()}{next(numbers)}", esx, lab.esx[esx].control)
        spec.setdefault("disks", [{"size_mb": 16}])
        vm.control.create_vm(vm.name, **spec)
        made.append(vm)
        lab.add_guest(vm.name, esx, **(variables or {}))
        return vm

    yield make
    for vm in made:
        lab.remove_guest(vm.name)
        vm.control.clear_faults()
        vm.control.destroy_vm(vm.name)


@pytest.fixture
def play(lab: LabSite) -> Callable[..., Played]:
    """Return run(playbook, *args, env=None, timeout=300): the real ansible-playbook against the lab.

    playbook: a file name in playbooks/ or a path. args: such as "--limit", vm.name. timeout: seconds.
    """
    folder = os.environ.get("VMBACKUP_TEST_ANSIBLE") or str(Path(sys.executable).parent)

    def run(playbook: str | Path, *args: str, env: dict[str, str] | None = None, timeout: float = 300) -> Played:
        argv = [f"{folder}/ansible-playbook", str(CHECKOUT / "playbooks" / playbook), *args]
        done = subprocess.run(
            argv,
            env={**os.environ, **lab.environment, "PATH": f"{folder}:{os.environ['PATH']}", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Played(done.returncode, done.stdout, done.stderr)

    return run
