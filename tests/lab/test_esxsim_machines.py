# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines: how they are created, named and shown, what their files say, what hinders a backup."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim

from tests.lab.client import Client, disks, sha256
from tests.lab.control import ControlError
from tests.lab.simulator import Simulator

MIB = 1 << 20


def test_layout_lists_exactly_the_files_that_are_there(sim: Simulator, client: Client, name: str) -> None:
    state = sim.control.create_vm(name, [{}, {"datastore": "ds two", "thin": False}])
    machine = client.vm(name)
    client.snapshot(machine, "one", memory=True)
    listed = {f.name: f.size for f in machine.layoutEx.file}
    there = {}
    for store in sim.control.datastores():
        for file in (Path(store["root"]) / name).iterdir():
            there[f"[{store['name']}] {name}/{file.name}"] = told_size(file)
    assert listed == there
    chains = [[k for unit in d.chain for k in unit.fileKey] for d in machine.layoutEx.disk]
    keys = {f.key: f.name for f in machine.layoutEx.file}
    assert [keys[k] for k in chains[0]] == [
        f"[datastore1] {name}/{name}{end}" for end in (".vmdk", "-flat.vmdk", "-000001.vmdk", "-000001-delta.vmdk")
    ]
    assert Path(state["dir"]).is_dir()


def told_size(file: Path) -> int:
    """Return what layoutEx tells of a file: of an extent the space that it takes, and a thick one takes all of it."""
    status = file.stat()
    extent = file.name.endswith(("-flat.vmdk", "-delta.vmdk"))
    return status.st_blocks * 512 if extent and "_1-flat" not in file.name else status.st_size


@pytest.mark.parametrize(
    "controller, node", [("sata", "sata0:0"), ("nvme", "nvme0:0"), ("ide", "ide0:0"), ("lsisas", "scsi0:0")]
)
def test_disks_hang_on_any_controller(sim: Simulator, client: Client, name: str, controller: str, node: str) -> None:
    state = sim.control.create_vm(name, [{"controller": controller}])
    assert state["disks"][0]["node"] == node
    machine = client.vm(name)
    disk = disks(machine.config)[0]
    assert any(d.key == disk.controllerKey for d in machine.config.hardware.device)
    assert f'{node}.fileName = "{name}.vmdk"' in (Path(state["dir"]) / f"{name}.vmx").read_text()
    snapshot = client.snapshot(machine, "one")
    WaitForTask(snapshot.RemoveSnapshot_Task(removeChildren=False))


def test_sixteen_disks_leave_out_the_unit_of_the_controller(sim: Simulator, name: str) -> None:
    state = sim.control.create_vm(name, [{"size_mb": 1}] * 16)
    nodes = [d["node"] for d in state["disks"]]
    assert nodes[6:8] == ["scsi0:6", "scsi0:8"]
    assert nodes[15] == "scsi1:0"


def test_an_image_becomes_the_content_of_a_disk(sim: Simulator, name: str, tmp_path: Path) -> None:
    image = tmp_path / "image.raw"
    with image.open("wb") as out:
        out.write(b"start" * 1000)
        out.truncate(64 * MIB)
        out.seek(48 * MIB)
        out.write(b"end" * 1000)
    state = sim.control.create_vm(name, [{"image": str(image)}])
    assert sim.control.sha256(name) == sha256(image.read_bytes())
    flat = Path(state["dir"]) / f"{name}-flat.vmdk"
    assert flat.stat().st_blocks * 512 < MIB


def test_thick_disks_take_their_whole_size_and_thin_ones_what_they_hold(
    sim: Simulator, client: Client, name: str
) -> None:
    before = sim.control.datastore("ds two")["free"]
    sim.control.create_vm(
        name, [{"size_mb": 64, "thin": False, "datastore": "ds two"}, {"size_mb": 64, "datastore": "ds two"}]
    )
    assert 64 * MIB <= before - sim.control.datastore("ds two")["free"] < 66 * MIB
    assert [d.backing.thinProvisioned for d in disks(client.vm(name).config)] == [False, True]


def test_what_hinders_a_backup_is_shown(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(
        name,
        [
            {"mode": "independent_nonpersistent"},
            {"rdm": "physical"},
            {"sharing": "sharingMultiWriter"},
            {"bus": 1, "unit": 0, "bus_sharing": "virtual"},
        ],
        passthrough=True,
        vtpm=True,
        encryption_key="k1",
        power="off",
    )
    machine = client.vm(name)
    modes = [d.backing for d in disks(machine.config)]
    assert modes[0].diskMode == "independent_nonpersistent"
    assert modes[1].compatibilityMode == "physicalMode"
    assert modes[2].sharing == "sharingMultiWriter"
    devices = machine.config.hardware.device
    assert any(getattr(d, "sharedBus", "") == "virtualSharing" for d in devices)
    assert any(isinstance(d, vim.vm.device.VirtualPCIPassthrough) for d in devices)
    assert any(isinstance(d, vim.vm.device.VirtualTPM) for d in devices)
    assert machine.config.keyId.keyId == "k1"
    with pytest.raises(vim.fault.SnapshotIncompatibleDeviceInVm):
        client.snapshot(machine, "one")
    sim.control.set_vm(name, template=True, passthrough=False, vtpm=False, consolidation_needed=True)
    assert machine.config.template
    assert machine.runtime.consolidationNeeded
    assert not any(isinstance(d, vim.vm.device.VirtualTPM) for d in machine.config.hardware.device)


@pytest.mark.parametrize("stored", ["web '1' \"x\"", "a%2fb", "Größe 日本", "dots.and;semi", "100%25"])
def test_names_survive_inventory_files_and_downloads(sim: Simulator, client: Client, stored: str) -> None:
    state = sim.control.create_vm(stored)
    machine = client.vm(stored)
    assert machine.name == stored
    folder = state["path"].split("] ")[1]
    answer, vmx = client.folder(folder)
    assert answer.status == 200
    assert vmx == (Path(state["dir"]) / folder.split("/")[1]).read_bytes()
    snapshot = client.snapshot(machine, "one")
    WaitForTask(snapshot.RemoveSnapshot_Task(removeChildren=False))


def test_two_machines_of_one_name_lie_in_different_folders(sim: Simulator, client: Client, name: str) -> None:
    if sim.model == "esx":
        pytest.skip("a lone ESX has no VM folders")
    one = sim.control.create_vm(name, folder="prod/web")
    two = sim.control.create_vm(name, folder="test")
    found = client.content.searchIndex.FindByInventoryPath(f"{sim.datacenter}/vm/prod/web/{name}")
    assert found._GetMoId() == one["moid"]
    assert one["path"] != two["path"]
    assert client.content.searchIndex.FindByUuid(None, two["instance_uuid"], True, True)._GetMoId() == two["moid"]
    with pytest.raises(ControlError, match="give the moid"):
        sim.control.state(name)
    assert sim.control.state(two["moid"])["path"] == two["path"]


def test_machines_run_on_the_host_they_were_given(sim: Simulator, client: Client, name: str) -> None:
    if sim.model == "esx":
        pytest.skip("a lone ESX is the only host")
    hosts = {
        h.name
        for h in client.content.viewManager.CreateContainerView(client.content.rootFolder, [vim.HostSystem], True).view
    }
    assert len(hosts) == 2
    for number, host in enumerate(sorted(hosts)):
        sim.control.create_vm(f"{name}-{number}", host=host)
        machine = client.vm(f"{name}-{number}")
        assert machine.runtime.host.name == host
        assert machine.resourcePool.owner == machine.runtime.host.parent


def test_power_changes_boot_time_version_and_swap_file(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name, power="off")
    machine = client.vm(name)
    assert machine.runtime.bootTime is None
    version = machine.config.changeVersion
    WaitForTask(machine.PowerOnVM_Task())
    assert machine.runtime.bootTime is not None
    assert machine.config.changeVersion != version
    assert any(f.endswith(".vswp") for f in sim.control.state(name)["files"])
    with pytest.raises(vim.fault.InvalidPowerState):
        WaitForTask(machine.PowerOnVM_Task())
    WaitForTask(machine.SuspendVM_Task())
    assert machine.runtime.powerState == "suspended"
    assert f"{name}.vmss" in sim.control.state(name)["files"]
    WaitForTask(machine.PowerOffVM_Task())
    assert not any(f.endswith(".vswp") for f in sim.control.state(name)["files"])


def test_a_machine_is_registered_from_copied_files(sim: Simulator, client: Client, name: str) -> None:
    state = sim.control.create_vm(name, [{"fill_mb": 1}, {"controller": "sata", "fill_mb": 1, "seed": 5}], power="off")
    copied = f"{name}-restored"
    for file in ("vmx", "vmdk", "nvram"):
        data = client.folder(f"{name}/{name}.{file}")[1]
        assert client.folder(f"{copied}/{name}.{file}", "PUT", body=data)[0].status == 201
    for file in (f"{name}-flat.vmdk", f"{name}_1.vmdk", f"{name}_1-flat.vmdk"):
        data = client.folder(f"{name}/{file}")[1]
        assert client.folder(f"{copied}/{file}", "PUT", body=data)[0].status == 201
    folder = client.vm(name).parent
    path = f"[datastore1] {copied}/{name}.vmx"
    pool = client.vm(name).resourcePool
    task = folder.RegisterVM_Task(path=path, name=copied, asTemplate=False, pool=pool)
    WaitForTask(task)
    restored = task.info.result
    assert [sim.control.sha256(copied, n) for n in (0, 1)] == [sim.control.sha256(name, n) for n in (0, 1)]
    assert [d["node"] for d in sim.control.state(copied)["disks"]] == ["scsi0:0", "sata0:0"]
    assert restored.config.instanceUuid == state["instance_uuid"]
    WaitForTask(restored.PowerOnVM_Task())
    snapshot = client.snapshot(restored, "one")
    WaitForTask(snapshot.RemoveSnapshot_Task(removeChildren=False))
    WaitForTask(restored.PowerOffVM_Task())
    restored.UnregisterVM()
    assert client.folder(f"{copied}/{name}.vmdk")[0].status == 200


def test_destroying_a_machine_removes_its_files(sim: Simulator, client: Client, name: str) -> None:
    state = sim.control.create_vm(name, power="off")
    WaitForTask(client.vm(name).Destroy_Task())
    assert not Path(state["dir"]).exists()
    assert sim.control.vms() == []


def test_the_version_and_the_clock_are_those_of_the_host(sim: Simulator, client: Client) -> None:
    assert client.content.about.version == "7.0.3"
    before = client.si.CurrentTime()
    sim.control.settings(clock_offset_s=-3600)
    assert 3500 < (before - client.si.CurrentTime()).total_seconds() < 3700
