# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs beside one another: on one VM, on one ESX host, and before the eyes of other users of the controller."""

from __future__ import annotations

import contextlib
import secrets
import threading
from contextlib import ExitStack
from pathlib import Path

from tests.integration.opened_backup import committed
from tests.lab.site import LabSite

from .runs import Run, playbook_argv, until
from .stages import NO_LIMITS, Make, limit, ours, results


def test_of_two_runs_at_once_one_backs_up_and_the_other_gives_way(lab: LabSite, fresh_vm: Make, tmp_path: Path) -> None:
    """One VM is wanted twice by one controller, the other by two; both get as far as both asking for a snapshot."""
    of_one = fresh_vm(disks=[{"size_mb": 4}], power="on", variables=NO_LIMITS)
    of_two = fresh_vm(
        disks=[{"size_mb": 4}],
        power="on",
        variables={
            **NO_LIMITS,
            "vmbackup_controller_id": "{{ second | default('lab') }}",
            "vmbackup_lock_dir": "{{ second_locks | default('%s') }}" % (lab.folder / "locks"),
        },
    )
    control = of_one.control
    for vm in (of_one, of_two):
        control.fault("stall", method="GET", path=f"{vm.name}-flat.vmdk", after_bytes=1 << 20)
    hang = control.fault("hang", method="CreateSnapshot_Task", vm=of_two.name)
    second = {"second": "elsewhere", "second_locks": tmp_path / "locks"}
    with ExitStack() as stack:
        runs = []
        for variables in ({}, second):
            argv = playbook_argv("full_backup.yml", args=limit(of_one, of_two), variables=variables)
            runs.append(Run(lab, tmp_path, argv))
            stack.callback(runs[-1].close)
        stack.callback(control.clear_faults)

        def told() -> str:
            return "\n".join(run.output for run in runs)

        until("both ask", lambda: any(f["used"] == 2 for f in control.faults() if f["id"] == hang), 60, told)
        control.clear_faults(hang)
        for vm in (of_one, of_two):
            until("one gives way", lambda vm=vm: sum(busy(run, vm.name) for run in runs), 60, told)
            until("one packs", lambda vm=vm: any(run.module("vm_archive", vm.name) for run in runs), 60, told)
            until("one snapshot is left", lambda vm=vm: len(ours(vm)) == 1, 20, told)
        control.clear_faults()
        assert sorted(run.wait() for run in runs) in ([0, 2], [2, 2])
    for vm in (of_one, of_two):
        assert sorted(results(run)[vm.name][0] for run in runs) == ["BUSY", "OK"], told()
        assert ours(vm) == [] and len(committed(lab.store_root, vm.name)) == 1


def busy(run: Run, vm: str) -> bool:
    """Tell whether a run has given way on a VM."""
    return any(line.startswith(f"fatal: [{vm} ") and "vm_busy" in line for line in run.output.splitlines())


def test_snapshots_wait_for_their_turn_and_no_secret_is_shown(lab: LabSite, fresh_vm: Make, tmp_path: Path) -> None:
    secret = "Secret-" + secrets.token_hex(8)  # the simulator's own command line shows that of root
    lab.esx["esx1"].control.user("backup", secret)
    login = {"vmbackup_esx_username": "backup", "vmbackup_esx_password": secret}
    vms = [
        fresh_vm(disks=[{"size_mb": 4, "fill_mb": 4}], power="on", variables={"vmbackup_max_per_esx_host": 1, **login})
        for _turn in range(3)
    ]
    seen: set[str] = set()
    done = threading.Event()
    watcher = threading.Thread(target=watch_commands, args=(seen, done), daemon=True)
    watcher.start()
    run = Run(lab, tmp_path, playbook_argv("full_backup.yml", args=(*limit(*vms), "--forks", "3", "-vvv")))
    most = 0
    try:
        while run.process.poll() is None:
            most = max(most, sum(bool(ours(vm)) for vm in vms))
        assert run.wait() == 0, run.output
    finally:
        done.set()
        watcher.join()
        run.close()
    assert most == 1
    assert [results(run)[vm.name][0] for vm in vms] == ["OK", "OK", "OK"]
    assert any("AnsiballZ_vm_archive" in command for command in seen)
    assert secret not in run.output
    assert not [command for command in seen if secret in command]


def watch_commands(seen: set[str], done: threading.Event) -> None:
    """Collect every command line of this machine, as any user of it may."""
    while not done.wait(0.05):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    seen.add((entry / "cmdline").read_text(errors="replace"))
