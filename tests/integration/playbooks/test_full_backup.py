# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job through the real playbooks: bytes, both models, all ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.opened_backup import committed, disk_digests, incoming, manifest, unpack
from tests.lab.fixtures import LabVm, Played
from tests.lab.site import LabSite
from tests.lab.witness import Witness

Make = Callable[..., LabVm]
Play = Callable[..., Played]


def ours(vm: LabVm) -> list[str]:
    """Return the snapshots of ours that are left on a VM."""
    return [each["name"] for each in vm.state()["snapshots"] if each["name"].startswith("vmbackup-")]


@pytest.mark.parametrize("esx", ["esx1", "vc1"])
def test_the_archive_equals_the_disks_at_the_snapshot_while_the_guest_writes_without_pause(
    lab: LabSite, fresh_vm: Make, play: Play, tmp_path: Path, esx: str
) -> None:
    vm = fresh_vm(
        esx=esx,
        disks=[
            {"size_mb": 24, "fill_mb": 12, "thin": True},
            {"size_mb": 16, "fill_mb": 4, "thin": False, "controller": "nvme", "datastore": "datastore2"},
        ],
        power="on",
    )
    vm.control.snapshot(vm.name, "user's own")
    vm.control.write_random(vm.name, 0, 1 << 20, 1 << 20, seed=5)  # lies in the user's delta, below ours
    with Witness(vm.control, vm.name) as witness:
        vm.control.start_writer(vm.name, rate=300)
        done = play("full_backup.yml", "--limit", vm.name)
        told = vm.control.stop_writer(vm.name)
    assert done.rc == 0, done.output
    (backup,) = committed(lab.store_root, vm.name)
    print("longest write stall: {} ms".format(told["max_stall_ms"]))
    folder = unpack(backup, tmp_path / "out")
    assert disk_digests(folder) == sorted(witness.digests["vmbackup-" + backup.name])
    assert told["error"] in (None, "") and told["writes"] > 0
    vmx = next(folder.rglob("*.vmx")).read_text()
    assert "-00000" not in vmx
    assert [each["name"] for each in vm.state()["snapshots"]] == ["user's own"]
    assert not incoming(lab.store_root, vm.name) and not committed(lab.folder / "staging", vm.name)


@pytest.mark.parametrize("way", ["streamed", "pulled"])
def test_the_other_ways_give_the_same_backup(
    lab: LabSite, fresh_vm: Make, play: Play, tmp_path: Path, way: str
) -> None:
    vm = fresh_vm(disks=[{"size_mb": 16, "fill_mb": 8}], power="on")
    extra = ["-e", "vmbackup_way={}".format(way)]
    if way == "pulled":
        extra += ["-e", "vmbackup_store_path={}".format(lab.store_root), "-e", "vmbackup_store_host="]
    with Witness(vm.control, vm.name) as witness:
        done = play("full_backup.yml", "--limit", vm.name, *extra)
    assert done.rc == 0, done.output
    (backup,) = committed(lab.store_root, vm.name)
    assert disk_digests(unpack(backup, tmp_path / "out")) == sorted(witness.digests["vmbackup-" + backup.name])
    assert ours(vm) == []


def test_a_vm_that_is_powered_off_is_packed_without_a_snapshot(
    lab: LabSite, fresh_vm: Make, play: Play, tmp_path: Path
) -> None:
    vm = fresh_vm(disks=[{"size_mb": 16, "fill_mb": 2, "controller": "sata"}], power="off")
    vm.control.calls(reset=True)
    done = play("full_backup.yml", "--limit", vm.name)
    assert done.rc == 0, done.output
    (backup,) = committed(lab.store_root, vm.name)
    assert manifest(backup)["consistency"] == "powered_off"
    assert disk_digests(unpack(backup, tmp_path / "out")) == [vm.control.sha256(vm.name)]
    assert "CreateSnapshot_Task" not in vm.control.calls()


def test_a_disk_left_out_by_label_is_named_and_not_required(
    lab: LabSite, fresh_vm: Make, play: Play, tmp_path: Path
) -> None:
    vm = fresh_vm(
        disks=[{"size_mb": 16}, {"size_mb": 16}],
        power="on",
        variables={"vmbackup_exclude_disks": ["Hard disk 2"]},
    )
    done = play("full_backup.yml", "--limit", vm.name)
    assert done.rc == 0, done.output
    (backup,) = committed(lab.store_root, vm.name)
    assert "Hard disk 2" in [each["what"] for each in manifest(backup)["left_out"]]
    folder = unpack(backup, tmp_path / "out")
    assert len(disk_digests(folder)) == 1
    vmx = next(folder.rglob("*.vmx")).read_text()
    assert "scsi0:0.fileName" in vmx and "scsi0:1" not in vmx
    assert "Hard disk 2" in (backup / "RECOVER.txt").read_text()


def test_vms_that_fail_do_not_stop_the_rest_and_the_summary_names_every_vm(
    lab: LabSite, fresh_vm: Make, play: Play
) -> None:
    good, bad = fresh_vm(power="on"), fresh_vm(power="on", template=True)
    done = play("full_backup.yml", "--limit", "{},{}".format(good.name, bad.name))
    assert done.rc == 2
    assert "{} ".format(good.name) in done.stdout and "1 of 2 good" in done.stdout
    assert "it is a template" in done.stdout
    assert len(committed(lab.store_root, good.name)) == 1 and committed(lab.store_root, bad.name) == []


def test_check_mode_says_what_would_happen_and_touches_nothing(lab: LabSite, fresh_vm: Make, play: Play) -> None:
    vm = fresh_vm(power="on")
    vm.control.calls(reset=True)
    for playbook in ("full_backup.yml", "phase1_archive.yml", "phase2_copy.yml", "cleanup.yml"):
        done = play(playbook, "--check", "--limit", vm.name)
        assert done.rc == 0, done.output
    assert "Would pack 1 disks" in play("full_backup.yml", "--check", "--limit", vm.name).stdout
    assert "CreateSnapshot_Task" not in vm.control.calls()
    assert committed(lab.store_root, vm.name) == [] and incoming(lab.store_root, vm.name) == []
    assert committed(lab.folder / "staging", vm.name) == []


def test_a_copy_can_be_repeated_alone(lab: LabSite, fresh_vm: Make, play: Play) -> None:
    vm = fresh_vm(power="on")
    assert play("phase1_archive.yml", "--limit", vm.name).rc == 0
    assert len(committed(lab.folder / "staging", vm.name)) == 1 and committed(lab.store_root, vm.name) == []
    done = play("phase2_copy.yml", "--limit", vm.name)
    assert done.rc == 0, done.output
    assert len(committed(lab.store_root, vm.name)) == 1 and committed(lab.folder / "staging", vm.name) == []
    assert play("phase2_copy.yml", "--limit", vm.name).rc == 0  # nothing is staged: nothing to do


def test_an_empty_run_fails(play: Play, tmp_path: Path) -> None:
    empty = tmp_path / "empty.yml"
    empty.write_text("all:\n  hosts: {}\n")
    done = play("full_backup.yml", "-i", str(empty), env={"ANSIBLE_INVENTORY": str(empty)})
    assert done.rc != 0 and "No host of the group" in done.output
    assert play("full_backup.yml", "--limit", "esx_hosts").rc != 0


def test_the_users_own_tasks_run_before_and_after_the_snapshot(fresh_vm: Make, play: Play, tmp_path: Path) -> None:
    variables: dict[str, Any] = {}
    for moment in ("before", "after"):
        tasks = tmp_path / f"{moment}.yml"
        tasks.write_text(f"- ansible.builtin.file: {{path: {tmp_path}/{moment}.ran, state: touch}}\n")
        variables[f"vmbackup_{moment}_snapshot_tasks"] = str(tasks)
    vm = fresh_vm(power="on", variables=variables)
    done = play("full_backup.yml", "--limit", vm.name)
    assert done.rc == 0, done.output
    assert (tmp_path / "before.ran").exists() and (tmp_path / "after.ran").exists()


def test_a_backup_costs_three_module_runs(fresh_vm: Make, play: Play) -> None:
    vm = fresh_vm(power="on")
    done = play("full_backup.yml", "--limit", vm.name, "-vv")
    modules = [line for line in done.stdout.splitlines() if line.startswith(("changed:", "ok:")) and "-> " in line]
    assert done.rc == 0 and len(modules) == 3, done.output


def test_two_fulls_of_a_vm_that_hardly_changed_share_their_members_at_equal_alignment(
    lab: LabSite, fresh_vm: Make, play: Play
) -> None:
    vm = fresh_vm(disks=[{"size_mb": 32, "fill_mb": 24}], power="on")
    assert play("full_backup.yml", "--limit", vm.name).rc == 0
    vm.control.write_random(vm.name, 0, 5 << 20, 4096, seed=3)  # one chunk of 24
    assert play("full_backup.yml", "--limit", vm.name).rc == 0
    first, second = (members(backup / "archive.tar.gz") for backup in committed(lab.store_root, vm.name))
    shared = sum(len(member) for member in second if member in set(first))
    assert shared > 0.9 * sum(map(len, second))


def members(archive: Path) -> list[bytes]:
    """Cut an archive into its gzip members by the lengths in their heads (docs/format.md); all but the last are aligned."""
    data, found, offset = archive.read_bytes(), [], 0
    while offset < len(data):
        assert offset % 4096 == 0 and data[offset + 12 : offset + 14] == b"VB"
        length = int.from_bytes(data[offset + 16 : offset + 20], "little")
        found.append(data[offset : offset + length])
        offset += length
    return found
