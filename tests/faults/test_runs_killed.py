# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs and modules that are killed, at every step and by every signal; the next run repairs what is left."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.opened_backup import committed, incoming
from tests.lab.site import LabSite

from .runs import Run, until
from .stages import Make, Stages, names, ours, results

REPAIR = ("phase2_copy.yml", "full_backup.yml")  # sends what dead runs packed, then makes a new backup
OTHER = {"vmbackup_controller_id": "elsewhere"}


@pytest.fixture
def stages(lab: LabSite, fresh_vm: Make, tmp_path: Path) -> Iterator[Stages]:
    yield Stages(lab, fresh_vm, tmp_path)
    lab.esx["esx1"].control.settings(clock_offset_s=0)


def end_modules(run: Run, number: int, *modules: str) -> None:
    """Signal modules that would go on for long after their playbook."""
    for name in modules:
        for pid in iter(lambda name=name: run.module(name), 0):
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(pid, number)
            until(f"{name} has ended", lambda pid=pid: pid not in run.living(), 20)


def end_orphans(run: Run) -> None:
    def told() -> str:
        return "\n".join(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in run.living())

    until("what outlived the playbook has ended", lambda: not run.living(), 40, told)


def test_a_playbook_killed_at_any_step_by_any_signal_is_repaired_by_the_next_run(stages: Stages) -> None:
    """Each run is the next one of the one before: it must reap, and come to the same step again."""
    for step in ("creating", "snapshotted", "packing", "copying"):
        stages.add(step)
    (packing,), (snapshotted,) = stages.packing, stages.snapshotted
    snapshotted.control.snapshot(snapshotted.name, "user's own")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
        packed = len(stages.staged(packing))
        with stages.held() as run:
            assert [len(ours(vm)) for vm in (snapshotted, packing)] == [1, 1]
            os.kill(run.process.pid, number)
            assert run.wait() == (99 if number == signal.SIGINT else -number), run.output
            stops = number in (signal.SIGINT, signal.SIGTERM)  # ansible-playbook hands these on to its modules
            if stops:
                until("the packing module has removed its snapshot", lambda: not ours(packing), 20)
            packing.control.clear_faults()
            end_modules(run, number, "wait_for", "archive_copy")
            end_orphans(run)
        assert ours(packing) == []
        assert len(stages.staged(packing)) == packed + (not stops), "an orphan that may go on commits"
        assert all(committed(stages.lab.store_root, vm.name) == [] for vm in stages.all)
    stages.play(*REPAIR, on=stages.all)
    stages.require_repaired(*stages.all)
    assert names(snapshotted) == ["user's own"]
    assert len(committed(stages.lab.store_root, packing.name)) == 3


def test_a_packing_module_that_is_signalled_removes_its_snapshot_and_leaves_nothing(stages: Stages) -> None:
    stopped = {number: stages.add("packing") for number in ("SIGINT", "SIGTERM", "SIGHUP")}
    killed = stages.add("packing")
    with stages.held("-vv") as run:
        for number, vm in (*stopped.items(), ("SIGKILL", killed)):
            os.kill(run.module("vm_archive", vm.name), getattr(signal, number))
        assert run.wait() == 2, run.output
    for number, vm in stopped.items():
        status, message = results(run)[vm.name]
        assert status == "FAILED" and f"Stopped by {number} before the work was done" in message
        assert incoming(stages.lab.folder / "staging", vm.name) == []
    assert run.output.count('"code": "interrupted"') >= 3
    status, message = results(run)[killed.name]
    assert status == "FAILED" and "Pack the frozen files: " in message
    assert [ours(vm) for vm in stages.all] == [[], [], [], []]
    assert all(stages.staged(vm) == [] and committed(stages.lab.store_root, vm.name) == [] for vm in stages.all)
    stages.play("full_backup.yml", on=[killed])
    stages.require_repaired(killed)


@pytest.mark.parametrize(
    ("step", "module", "task"),
    [("creating", "vm_snapshot", "Snapshot the VM: "), ("copying", "archive_copy", "Send the archive to the store: ")],
)
def test_a_snapshot_or_copy_that_is_signalled_fails_its_vm_and_the_next_run_repairs(
    stages: Stages, step: str, module: str, task: str
) -> None:
    vms = {number: stages.add(step) for number in ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL")}
    with stages.held("-vv") as run:
        for number, vm in vms.items():
            os.kill(run.module(module, vm.name), getattr(signal, number))
        assert run.wait() == 2, run.output
    for number, vm in vms.items():
        status, message = results(run)[vm.name]
        words = task if number == "SIGKILL" else f"Stopped by {number} before the work was done"
        assert status == "FAILED" and words in message, message
        assert committed(stages.lab.store_root, vm.name) == []
        if step == "creating":  # vSphere goes on with what it was asked for
            until(f"the snapshot of {vm.name} comes late", lambda vm=vm: ours(vm), 20)
        else:
            assert ours(vm) == [] and len(stages.staged(vm)) == 1 and incoming(stages.lab.store_root, vm.name)
    assert run.output.count('"code": "interrupted"') >= 3
    stages.play(*REPAIR, on=stages.all)
    stages.require_repaired(*stages.all)


def test_a_module_that_outlives_its_playbook_keeps_its_vm_and_what_it_commits_is_sent(stages: Stages) -> None:
    packing, snapshotted = stages.add("packing"), stages.add("snapshotted")
    control = packing.control
    both = [packing, snapshotted]
    with stages.held() as run:
        os.kill(run.process.pid, signal.SIGKILL)
        run.wait()
        end_modules(run, signal.SIGKILL, "wait_for")
        before = [names(vm) for vm in both]
        control.settings(clock_offset_s=29 * 60)
        elsewhere = stages.play("cleanup.yml", "full_backup.yml", on=both, rc=2, variables=OTHER)
        here = stages.play("cleanup.yml", "full_backup.yml", on=[packing], rc=2)
        for second, vms in ((elsewhere, both), (here, [packing])):
            for vm in vms:
                status, message = results(second)[vm.name]
                assert status == "BUSY" and names(vm)[0][len("vmbackup-") :] in message, message
        assert [names(vm) for vm in both] == before
        assert run.module("vm_archive", packing.name)
        control.clear_faults()
        end_orphans(run)
    assert ours(packing) == [] and len(stages.staged(packing)) == 1
    control.settings(clock_offset_s=31 * 60)
    stages.play("cleanup.yml", "phase2_copy.yml", on=both, variables=OTHER)
    assert ours(snapshotted) == []
    stages.require_repaired(packing)


def test_a_run_killed_between_the_removal_and_the_merge_of_its_disks_is_finished_by_the_next_run(
    stages: Stages,
) -> None:
    packing = stages.add("packing")
    control = packing.control
    control.snapshot(packing.name, "user's own")
    with stages.held() as run:
        control.fault("consolidation", method="RemoveSnapshot_Task", vm=packing.name)
        control.fault("task", method="ConsolidateVMDisks_Task", vm=packing.name, fault="FileLocked")
        control.clear_faults(next(fault["id"] for fault in control.faults() if fault["kind"] == "stall"))
        run.until("the merge is still to come", lambda: packing.state()["consolidation_needed"])
        os.kill(run.process.pid, signal.SIGKILL)
        run.wait()
        end_modules(run, signal.SIGKILL, "vm_archive")
        end_orphans(run)
    assert names(packing) == ["user's own"] and packing.state()["consolidation_needed"]
    elsewhere = {**OTHER, "vmbackup_lock_dir": str(stages.folder / "none")}  # without the proof
    stages.play("cleanup.yml", on=[packing], variables=elsewhere)
    refused = results(stages.play("full_backup.yml", on=[packing], rc=2, variables=elsewhere))[packing.name]
    assert refused[0] == "FAILED" and "need consolidation" in refused[1]
    assert packing.state()["consolidation_needed"]
    stages.play("cleanup.yml", on=[packing])
    assert not packing.state()["consolidation_needed"]
    stages.play(*REPAIR, on=[packing])
    stages.require_repaired(packing)
    assert names(packing) == ["user's own"]


def test_a_cancelled_job_is_repaired_by_the_next_run(stages: Stages) -> None:
    """A cancel in AWX is one of ansible-runner's: it kills ansible-playbook, and the modules go on."""
    packing, snapshotted = stages.add("packing"), stages.add("snapshotted")
    (stages.folder / "job").mkdir()
    with stages.held(job=True) as run:
        os.kill(run.process.pid, signal.SIGTERM)
        assert run.wait() != 0
        packing.control.clear_faults()
        end_modules(run, signal.SIGKILL, "wait_for")
        end_orphans(run)
    assert len(ours(snapshotted)) == 1 and ours(packing) == []
    stages.play(*REPAIR, on=stages.all)
    stages.require_repaired(*stages.all)
