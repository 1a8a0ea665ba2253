# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is held at chosen steps, and what must hold once a later run has come by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.integration.opened_backup import committed, disk_digests, incoming, unpack
from tests.lab.fixtures import LabVm
from tests.lab.site import LabSite

from .runs import NOTHING, Run, job_argv, playbook_argv

Make = Callable[..., LabVm]
NO_LIMITS = {"vmbackup_max_per_esx_host": 0, "vmbackup_max_per_datastore": 0}
_WAIT = "- {ansible.builtin.wait_for: {timeout: 90}, delegate_to: localhost}\n"
_RESULT = re.compile(r'^ +"(\S+) +(OK|BUSY|FAILED|MISSING) +(.*)",?$', re.MULTILINE)


def names(vm: LabVm) -> list[str]:
    """Return the names of a VM's snapshots."""
    return [each["name"] for each in vm.state()["snapshots"]]


def ours(vm: LabVm) -> list[str]:
    """Return the names of our snapshots of a VM."""
    return [name for name in names(vm) if name.startswith("vmbackup-")]


def limit(*vms: LabVm) -> tuple[str, str]:
    """Return the arguments that keep a run to some VMs."""
    return "--limit", ",".join(vm.name for vm in vms)


def results(run: Run) -> dict[str, tuple[str, str]]:
    """Return status and message of each VM from the last summary that a run printed."""
    return {name: (status, message) for name, status, message in _RESULT.findall(run.output)}


class Stages:
    """VMs, each to be held at a step of its own by the first run over it.

    creating: while the snapshot's task goes on. snapshotted: between snapshot and pack. packing: with the archive begun.
    copying: with the copy begun. lab, make, folder: the fixtures.
    """

    def __init__(self, lab: LabSite, make: Make, folder: Path) -> None:
        self.lab, self._make, self.folder = lab, make, folder
        self.creating: list[LabVm] = []
        self.snapshotted: list[LabVm] = []
        self.packing: list[LabVm] = []
        self.copying: list[LabVm] = []
        (folder / "wait.yml").write_text(_WAIT)

    @property
    def all(self) -> list[LabVm]:
        return [*self.creating, *self.snapshotted, *self.packing, *self.copying]

    def add(self, step: str, **variables: Any) -> LabVm:
        """Make a VM that is to be held at a step."""
        own: dict[str, Any] = {
            # Locks of its own, since who takes a snapshot keeps the others of this controller waiting.
            "creating": {"vmbackup_lock_dir": str(self.folder / "locks" / "{{ inventory_hostname }}")},
            "snapshotted": {"vmbackup_after_snapshot_tasks": "{{ hold | default('') }}"},
            "copying": {"vmbackup_rate_limit": "{{ slow | default(0) }}"},
        }
        settings = {**NO_LIMITS, **own.get(step, {}), **variables}
        vm = self._make(disks=[{"size_mb": 4, "fill_mb": 4}], power="on", variables=settings)
        getattr(self, step).append(vm)
        return vm

    @contextmanager
    def held(self, *args: str, job: bool = False) -> Iterator[Run]:
        """Start a full backup of all and bring each to its step; what holds them is taken away at the end.

        job: by ansible-runner.
        """
        control = self.all[0].control
        for vm in self.creating:
            control.fault("hang", method="CreateSnapshot_Task", vm=vm.name)
        for vm in self.packing:
            control.fault("stall", method="GET", path=f"{vm.name}-flat.vmdk", after_bytes=1 << 20)
        with ExitStack() as stack:
            hold = {"hold": self.folder / "wait.yml", "slow": 50000}
            argv = playbook_argv("full_backup.yml", args=(*limit(*self.all), *args), variables=hold)
            run = Run(self.lab, self.folder, job_argv(argv, self.folder / "job") if job else argv)
            stack.callback(run.close)
            stack.callback(control.clear_faults)
            self.wait(run)
            yield run

    def wait(self, run: Run) -> None:
        """Wait until each VM is at its step."""
        control, root = self.all[0].control, self.lab.store_root
        for vm in self.creating:
            run.until("a creation hangs", lambda vm=vm: any(f["used"] for f in control.faults() if f["vm"] == vm.name))
        for vm in self.snapshotted:
            run.until("a snapshot stands", lambda vm=vm: ours(vm) and run.module("wait_for"))
        for vm in self.packing:
            run.until("an archive grows", lambda vm=vm: run.module("vm_archive", vm.name))
        for vm in self.copying:
            # The part in the store alone may be of an earlier run, with which this one does not go on.
            run.until("a copy grows", lambda vm=vm: incoming(root, vm.name) and run.module("archive_copy", vm.name))

    def staged(self, vm: LabVm) -> list[Path]:
        """Return what is packed of a VM and not sent."""
        return committed(self.lab.folder / "staging", vm.name)

    def play(self, *playbooks: str, on: Sequence[LabVm], rc: int = 0, variables: Mapping[str, Any] = NOTHING) -> Run:
        """Run playbooks over some VMs to the end; the exit code must be `rc`."""
        run = Run(self.lab, self.folder, playbook_argv(*playbooks, args=limit(*on), variables=variables))
        try:
            assert run.wait() == rc, run.output
        finally:
            run.close()
        return run

    def require_repaired(self, *vms: LabVm) -> None:
        """Hold what must hold after the next run: nothing of ours but whole backups that equal the disks."""
        for vm in vms:
            assert ours(vm) == [], vm.name
            assert not vm.state()["consolidation_needed"], vm.name
            assert incoming(self.lab.folder / "staging", vm.name) == [] and self.staged(vm) == [], vm.name
            assert incoming(self.lab.store_root, vm.name) == [], vm.name
            backups = committed(self.lab.store_root, vm.name)
            assert backups, vm.name
            for backup in backups:
                assert disk_digests(unpack(backup, self.folder / backup.name)) == [vm.control.sha256(vm.name)]
