# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots: deltas, trees with branches, merging, consolidation, and what the files then say."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim

from tests.lab.client import Client, disks, sha256, tree
from tests.lab.control import ControlError
from tests.lab.simulator import Simulator

KIB = 1024
MIB = 1024 * KIB


def heads(machine: Any) -> list[str]:
    return [d.backing.fileName.rpartition("/")[2] for d in disks(machine.config)]


def test_a_snapshot_freezes_the_disk_and_removal_merges_the_delta(sim: Simulator, client: Client, name: str) -> None:
    state = sim.control.create_vm(name, [{"size_mb": 16, "fill_mb": 4}])
    folder, machine = Path(state["dir"]), client.vm(name)
    before = sim.control.sha256(name)
    snapshot = client.snapshot(machine, "one")
    assert heads(machine) == [f"{name}-000001.vmdk"]
    assert disks(machine.config)[0].backing.parent.fileName.endswith(f"/{name}.vmdk")
    assert disks(snapshot.config)[0].backing.fileName.endswith(f"/{name}.vmdk")
    assert f'scsi0:0.fileName = "{name}-000001.vmdk"' in (folder / f"{name}.vmx").read_text()
    sim.control.write(name, 0, 1 * MIB, b"x" * 4096)
    assert sha256((folder / f"{name}-flat.vmdk").read_bytes()) == before == sim.control.sha256(name, 0, "one")
    after = sim.control.sha256(name)
    assert after != before
    WaitForTask(snapshot.RemoveSnapshot_Task(removeChildren=False))
    assert machine.snapshot is None
    assert not machine.rootSnapshot
    assert heads(machine) == [f"{name}.vmdk"]
    assert sha256((folder / f"{name}-flat.vmdk").read_bytes()) == after
    assert not list(folder.glob("*-0*.vmdk")) + list(folder.glob("*.vmsn"))
    assert f'scsi0:0.fileName = "{name}.vmdk"' in (folder / f"{name}.vmx").read_text()


def test_qemu_reads_a_chain_of_deltas_as_the_guest_does(
    sim: Simulator, client: Client, name: str, tmp_path: Path
) -> None:
    state = sim.control.create_vm(name, [{"size_mb": 16, "fill_mb": 4}])
    machine = client.vm(name)
    for number in range(3):
        sim.control.write_random(name, 0, number * 512 * KIB, 70 * 512, seed=number)
        client.snapshot(machine, f"s{number}")
        sim.control.write_random(name, 0, 3 * MIB + number * 4096, 8192, seed=number)
    raw = tmp_path / "disk.raw"
    head = Path(state["dir"]) / f"{name}-000003.vmdk"
    subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(head), str(raw)], check=True, timeout=60)
    assert sha256(raw.read_bytes()) == sim.control.sha256(name)


def test_sesparse_names_are_used_where_asked(sim: Simulator, client: Client, name: str) -> None:
    state = sim.control.create_vm(name, sesparse=True)
    client.snapshot(client.vm(name), "one")
    text = (Path(state["dir"]) / f"{name}-000001.vmdk").read_text()
    assert 'createType="seSparse"' in text
    assert f'SESPARSE "{name}-000001-sesparse.vmdk"' in text
    assert f"{name}-000001-sesparse.vmdk" in sim.control.state(name)["files"]


def test_a_delta_on_another_datastore_stays_beside_its_parent(sim: Simulator, client: Client, name: str) -> None:
    state = sim.control.create_vm(name, [{}, {"datastore": "ds two"}])
    machine = client.vm(name)
    client.snapshot(machine, "one")
    assert disks(machine.config)[1].backing.fileName == f"[ds two] {name}/{name}_1-000001.vmdk"
    vmx = (Path(state["dir"]) / f"{name}.vmx").read_text()
    uuid = sim.control.datastore("ds two")["uuid"]
    assert f'scsi0:1.fileName = "/vmfs/volumes/{uuid}/{name}/{name}_1-000001.vmdk"' in vmx
    assert {d.name for d in machine.datastore} == {"datastore1", "ds two"}


def test_independent_disks_take_no_part_in_snapshots(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name, [{}, {"mode": "independent_persistent"}])
    machine = client.vm(name)
    client.snapshot(machine, "one")
    assert heads(machine) == [f"{name}-000001.vmdk", f"{name}_1.vmdk"]
    with pytest.raises(ControlError, match="does not cover disk 1"):
        sim.control.sha256(name, 1, "one")


def test_branches_keep_the_layer_that_two_children_need(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name, [{"size_mb": 8, "fill_mb": 2}])
    machine = client.vm(name)
    client.snapshot(machine, "base")
    sim.control.write_random(name, 0, 0, 4096, seed=1)
    fork = client.snapshot(machine, "fork")
    sim.control.write_random(name, 0, 4096, 4096, seed=2)
    left = client.snapshot(machine, "left")
    left_sum = sim.control.sha256(name, 0, "left")
    WaitForTask(fork.RevertToSnapshot_Task())
    assert machine.runtime.powerState == "poweredOff"
    sim.control.write_random(name, 0, 8192, 4096, seed=3)
    right = client.snapshot(machine, "right")
    right_sum = sim.control.sha256(name, 0, "right")
    assert {
        c.name for n in tree(machine.snapshot.rootSnapshotList) if n.name == "fork" for c in n.childSnapshotList
    } == {
        "left",
        "right",
    }
    assert machine.snapshot.currentSnapshot == right
    WaitForTask(fork.RemoveSnapshot_Task(removeChildren=False))
    assert [n.name for n in tree(machine.snapshot.rootSnapshotList)] == ["base", "left", "right"]
    assert (sim.control.sha256(name, 0, "left"), sim.control.sha256(name, 0, "right")) == (left_sum, right_sum)
    WaitForTask(left.RemoveSnapshot_Task(removeChildren=False))
    assert sim.control.sha256(name, 0, "right") == right_sum
    WaitForTask(machine.RemoveAllSnapshots_Task())
    assert heads(machine) == [f"{name}.vmdk"]
    assert sim.control.sha256(name) == right_sum


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_snapshots_reverts_and_removals_keeps_every_content(sim: Simulator, name: str, seed: int) -> None:
    """A model: the contents that the guest and each snapshot must have, against what the disks hold."""
    chance = random.Random(seed)
    sim.control.create_vm(name, [{"size_mb": 1}], power="off", sesparse=bool(seed % 2))
    live, kept = sim.control.sha256(name), {}
    for step in range(40):
        action = chance.choice(["write", "write", "snapshot", "revert", "remove"])
        if action == "write":
            sim.control.write_random(name, 0, chance.randrange(500) * 2048, 2048, seed=step)
            live = sim.control.sha256(name)
        elif action == "snapshot" and len(kept) < 6:
            kept[sim.control.snapshot(name, f"s{step}")] = live
        elif action == "revert" and kept:
            chosen = chance.choice(list(kept))
            sim.control.revert(name, chosen)
            live = kept[chosen]
        elif action == "remove" and kept:
            chosen = chance.choice(list(kept))
            sim.control.remove_snapshot(name, chosen)
            del kept[chosen]
        assert sim.control.sha256(name) == live, (step, action)
        assert {moid: sim.control.sha256(name, 0, moid) for moid in kept} == kept, (step, action)
    for moid in kept:
        sim.control.remove_snapshot(name, moid)
    assert [d["chain"] for d in sim.control.state(name)["disks"]] == [[f"[datastore1] {name}/{name}.vmdk"]]
    assert sim.control.sha256(name) == live


def test_removing_with_children_takes_the_subtree(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name)
    machine = client.vm(name)
    client.snapshot(machine, "one")
    two = client.snapshot(machine, "two")
    client.snapshot(machine, "three")
    WaitForTask(two.RemoveSnapshot_Task(removeChildren=True))
    assert [n.name for n in tree(machine.snapshot.rootSnapshotList)] == ["one"]
    assert machine.snapshot.currentSnapshot == machine.snapshot.rootSnapshotList[0].snapshot


def test_rename_changes_name_and_description(sim: Simulator, client: Client, name: str) -> None:
    state = sim.control.create_vm(name)
    machine = client.vm(name)
    snapshot = client.snapshot(machine, "one")
    snapshot.RenameSnapshot(name="eins", description='{"id": "x"}')
    node = machine.snapshot.rootSnapshotList[0]
    assert (node.name, node.description) == ("eins", '{"id": "x"}')
    assert 'displayName = "eins"' in (Path(state["dir"]) / f"{name}.vmsd").read_text()


def test_quiesced_tells_what_was_had(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name)
    machine = client.vm(name)
    client.snapshot(machine, "asked", quiesce=True)
    sim.control.set_vm(name, tools=False)
    client.snapshot(machine, "no tools", quiesce=True)
    sim.control.set_vm(name, tools=True)
    client.snapshot(machine, "not asked")
    assert [n.quiesced for n in tree(machine.snapshot.rootSnapshotList)] == [True, False, False]
    sim.control.set_vm(name, fail_quiesce=True)
    with pytest.raises(vim.fault.ApplicationQuiesceFault):
        client.snapshot(machine, "asked again", quiesce=True)
    client.snapshot(machine, "not asked again")


def test_a_memory_snapshot_brings_the_machine_back_running(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name)
    machine = client.vm(name)
    client.snapshot(machine, "m", memory=True)
    assert f"{name}-Snapshot1.vmem" in sim.control.state(name)["files"]
    WaitForTask(machine.RevertToCurrentSnapshot_Task())
    assert machine.runtime.powerState == "poweredOn"


def test_a_removal_can_leave_the_merge_to_a_consolidation(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name, [{"size_mb": 8, "fill_mb": 1}])
    machine = client.vm(name)
    snapshot = client.snapshot(machine, "one")
    sim.control.write_random(name, 0, 0, 8192)
    content = sim.control.sha256(name)
    sim.control.fault("consolidation", method="RemoveSnapshot_Task", vm=name, count=1)
    sim.control.fault("consolidation", method="ConsolidateVMDisks_Task", vm=name, count=1)
    WaitForTask(snapshot.RemoveSnapshot_Task(removeChildren=False))
    assert machine.snapshot is None
    assert machine.runtime.consolidationNeeded
    assert heads(machine) == [f"{name}-000001.vmdk"]
    with pytest.raises(vim.fault.FileLocked):
        WaitForTask(machine.ConsolidateVMDisks_Task())
    WaitForTask(machine.ConsolidateVMDisks_Task())
    assert not machine.runtime.consolidationNeeded
    assert heads(machine) == [f"{name}.vmdk"]
    assert sim.control.sha256(name) == content


def test_the_guest_writes_on_while_snapshots_come_and_go(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name, [{"size_mb": 32}])
    sim.control.settings(stun_ms=120)
    machine = client.vm(name)
    sim.control.start_writer(name, rate=1500)
    snapshot = client.snapshot(machine, "one")
    WaitForTask(snapshot.RemoveSnapshot_Task(removeChildren=False))
    result = sim.control.stop_writer(name)
    assert result["error"] == ""
    assert result["writes"] / result["seconds"] > 500
    assert result["max_stall_ms"] >= 100
