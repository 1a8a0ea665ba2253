# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chains that the datastore transport cannot read are refused while there is no snapshot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere import frozen, full
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.datastore import require_readable
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.facts import read_facts
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.snapshots import create_snapshot
from tests.integration.vsphere.given import lease
from tests.integration.vsphere.test_full import packed
from tests.integration.vsphere.test_vm_snapshot_module import Controller


def refusal(machine: Any, **options: Any) -> VmbackupError:
    with pytest.raises(VmbackupError) as caught:
        require_readable(machine.session, machine.vm_obj, **options)
    return caught.value


@pytest.mark.parametrize("power", ["on", "off"])
def test_chains_that_can_be_read_are_let_pass(make_machine: Any, power: str) -> None:
    machine = make_machine(disks=[{"size_mb": 1}, {"size_mb": 1, "thin": True, "controller": "sata"}])
    require_readable(machine.session, machine.vm_obj)
    machine.control.snapshot(machine.name, "user")
    machine.control.set_vm(machine.name, power=power)
    require_readable(machine.session, machine.vm_obj)


def test_an_sesparse_head_is_refused_by_name(make_machine: Any) -> None:
    machine = make_machine(sesparse=True)
    require_readable(machine.session, machine.vm_obj)
    machine.control.snapshot(machine.name, "user")
    error = refusal(machine)
    assert error.code == "transport_unsupported"
    assert machine.heads()[0].rsplit("/", 1)[-1] in str(error) and "Hard disk 1" in str(error)
    assert "transport" in error.hint and "exclude_disks" in error.hint


def test_a_mapped_raw_device_is_refused_unless_left_out(make_machine: Any) -> None:
    machine = make_machine(disks=[{"size_mb": 1}, {"size_mb": 1, "rdm": "virtual"}])
    label = read_facts(machine.session, machine.vm_obj).disks[1].label
    error = refusal(machine)
    assert error.code == "transport_unsupported" and label in str(error) and "raw device" in str(error)
    require_readable(machine.session, machine.vm_obj, exclude_disks=[label])
    machine.control.snapshot(machine.name, "user")
    error = refusal(machine)
    assert error.code == "transport_unsupported" and label in str(error)


def test_a_link_without_an_extent_is_refused(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on vSAN, which the simulator lacks: layoutEx lists descriptors only."""
    real = frozen.files_of
    monkeypatch.setattr(
        frozen, "files_of", lambda layout: tuple(each for each in real(layout) if each.kind != "diskExtent")
    )
    error = refusal(machine)
    assert error.code == "transport_unsupported" and "0 extents" in str(error) and ".vmdk" in str(error)


def test_a_head_whose_descriptor_the_host_keeps_is_left_to_the_probe(machine: Any) -> None:
    machine.control.snapshot(machine.name, "user")
    heads = [head.rsplit("/", 1)[-1] for head in machine.heads()]
    for head in heads:
        machine.control.fault("http", method="GET", path=head, status=500)
    require_readable(machine.session, machine.vm_obj)
    machine.control.clear_faults()
    machine.control.fault("http", method="GET", path=heads[0].replace("-000001", ""), status=403)
    assert refusal(machine).code == "download_refused"


def test_vm_snapshot_refuses_before_there_is_a_snapshot(make_machine: Any, tmp_path: Path) -> None:
    machine = make_machine(sesparse=True)
    machine.control.snapshot(machine.name, "user")
    controller = Controller(machine, tmp_path)
    machine.control.calls(reset=True)
    for flags in (["--check"], []):
        result = controller.call(*flags)
        assert result["failed"] and result["code"] == "transport_unsupported"
    assert "CreateSnapshot_Task" not in machine.control.calls()
    assert machine.names() == ["user"]


def test_what_a_dead_run_left_does_not_count(make_machine: Any, tmp_path: Path) -> None:
    """On VMFS 6 our own delta is SEsparse: the chain is judged without those that are to be reaped."""
    machine = make_machine(sesparse=True)
    old = lease("dead")
    old = replace(old, renewed=None)
    machine.control.settings(clock_offset_s=-90000)
    machine.control.snapshot(machine.name, old.name, old.description)
    machine.control.settings(clock_offset_s=0)
    result = Controller(machine, tmp_path).call()
    assert not result.get("failed"), result
    assert result["reaped"] == [old.id]


def test_a_frozen_disk_that_the_host_does_not_give_fails_before_anything_is_packed(
    machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_snapshot(machine.session, machine.vm_obj, lease(), quiesce="never", timeout=10.0)
    extent = frozen.present_disks(machine.session, machine.vm_obj)[1].links[0].extent
    machine.control.fault("http", method="GET", path=extent, status=403)
    started = []
    monkeypatch.setattr(full, "pack", lambda *given, **options: started.append(given))
    with pytest.raises(VmbackupError) as caught:
        packed(machine, tmp_path)
    assert caught.value.code == "download_refused" and extent in str(caught.value)
    assert not started
