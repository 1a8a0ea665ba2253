# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts, frozen files and the datastore transport against a real simulator: bytes equal the disks of the snapshot."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.coverage import CoveragePolicy, judge
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere import datastore_file
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.datastore import (
    DatastoreReader,
    descriptor_of,
    disk_source,
)
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.facts import read_facts
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.frozen import archived_vmx, frozen_vm

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datastore_file, "_PAUSES", (0.01, 0.01, 0.01))


def read_disk(reader: DatastoreReader, disk: Any, chunk: int = MIB) -> bytes:
    data = bytearray(disk.capacity)
    with disk_source(reader, disk, tempfile.gettempdir()) as source:
        for at in range(0, disk.capacity, chunk):
            source.read_into(at, memoryview(data)[at : at + chunk])
    return bytes(data)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def chained(machine: Any) -> str:
    """Give the first disk two user's snapshots with writes between, then ours; write on. Return ours."""
    control, name = machine.control, machine.name
    control.snapshot(name, "user one")
    for at in (0, 4096, 300 * 1024, 700 * 1024):
        control.write_random(name, 0, at, 9 * 512, seed=at + 1)
    control.snapshot(name, "user two")
    for at in (512, 4608, 600 * 1024):
        control.write_random(name, 0, at, 3 * 512, seed=at + 2)
    moid = control.snapshot(name, "frozen")
    control.write_random(name, 0, 0, 64 * 512, seed=99)
    return str(moid)


def test_a_chain_with_user_snapshots_is_read_as_the_snapshot_froze_it(machine: Any) -> None:
    moid = chained(machine)
    frozen = frozen_vm(machine.session, machine.vm_obj, moid)
    reader = DatastoreReader(machine.session, machine.vm_obj)
    reader.probe(frozen)
    assert [len(disk.links) for disk in frozen.disks] == [3, 3]
    for number, disk in enumerate(frozen.disks):
        assert sha(read_disk(reader, disk, 300 * 512)) == machine.control.sha256(machine.name, number, "frozen")
    assert machine.control.sha256(machine.name, 0) != machine.control.sha256(machine.name, 0, "frozen")


def test_a_powered_off_vm_with_snapshots_is_read_as_it_is_now(make_machine: Any) -> None:
    machine = make_machine()
    chained(machine)
    machine.control.set_vm(machine.name, power="off")
    frozen = frozen_vm(machine.session, machine.vm_obj, None)
    data = read_disk(DatastoreReader(machine.session, machine.vm_obj), frozen.disks[0])
    assert sha(data) == machine.control.sha256(machine.name, 0)


def test_a_running_vm_without_a_snapshot_is_refused(machine: Any) -> None:
    with pytest.raises(VmbackupError) as caught:
        frozen_vm(machine.session, machine.vm_obj, None)
    assert caught.value.code == "vm_not_still"


@pytest.mark.parametrize("name", ["web 01", "a%2fb", "größe", 'quo"ted & +1'])
def test_disks_on_two_datastores_and_all_controllers_are_read_whatever_the_name(make_machine: Any, name: str) -> None:
    disks = [
        {"size_mb": 1, "fill_mb": 1, "controller": "scsi"},
        {"size_mb": 1, "fill_mb": 1, "seed": 5, "controller": "sata", "datastore": "datastore2"},
        {"size_mb": 1, "fill_mb": 1, "seed": 6, "controller": "nvme", "file": "equal.vmdk"},
        {"size_mb": 1, "fill_mb": 1, "seed": 7, "controller": "scsi", "datastore": "datastore2", "file": "equal.vmdk"},
    ]
    machine = make_machine(name=name + "-" + make_machine.__class__.__name__, disks=disks)
    vm = machine.state()["moid"]
    moid = machine.control.snapshot(vm, "frozen")
    frozen = frozen_vm(machine.session, machine.vm_obj, moid)
    reader = DatastoreReader(machine.session, machine.vm_obj)
    for number, disk in enumerate(frozen.disks):
        assert sha(read_disk(reader, disk)) == machine.control.sha256(vm, number, "frozen")
    assert [disk.node for disk in frozen.disks] == [each["node"] for each in machine.state()["disks"]]
    names = [each for disk in frozen.disks for each in (disk.descriptor_name, disk.flat_name)]
    assert len(set(names)) == 8
    text = archived_vmx(reader, frozen).decode("utf-8")
    assert all('{}.fileName = "{}"'.format(disk.node, disk.descriptor_name) in text for disk in frozen.disks)
    assert "-000001.vmdk" not in text
    assert all(disk.flat_name.encode() in descriptor_of(disk) for disk in frozen.disks)


def test_what_is_left_is_named_with_its_reason(make_machine: Any) -> None:
    machine = make_machine(
        cbt=True, disks=[{"size_mb": 1}, {"size_mb": 1}, {"size_mb": 1, "mode": "independent_persistent"}]
    )
    label = read_facts(machine.session, machine.vm_obj).disks[1].label
    moid = machine.control.snapshot(machine.name, "frozen")
    frozen = frozen_vm(machine.session, machine.vm_obj, moid, exclude_disks=[label])
    assert len(frozen.disks) == 1
    left = {what.rsplit("/", 1)[-1]: reason for what, _kind, reason in frozen.left_out}
    assert "left out by exclude_disks" in left.values() and "independent: no snapshot holds it" in left.values()
    assert any(name.endswith("-delta.vmdk") for name in left) and any(name.endswith(".vswp") for name in left)
    assert any(name.endswith("-ctk.vmdk") for name in left) and any(name.endswith(".log") for name in left)
    assert {file.role for file in frozen.files} >= {"config", "nvram"} and not {"log"} & {f.role for f in frozen.files}
    text = archived_vmx(DatastoreReader(machine.session, machine.vm_obj), frozen).decode()
    assert text.count(".vmdk") == 1 and "ctkEnabled" not in text
    with_logs = frozen_vm(machine.session, machine.vm_obj, moid, include_logs=True)
    assert "log" in {file.role for file in with_logs.files}


def test_sesparse_links_are_reported_by_the_probe(make_machine: Any) -> None:
    machine = make_machine(sesparse=True)
    machine.control.snapshot(machine.name, "user")
    moid = machine.control.snapshot(machine.name, "frozen")
    frozen = frozen_vm(machine.session, machine.vm_obj, moid)
    reader = DatastoreReader(machine.session, machine.vm_obj)
    with pytest.raises(VmbackupError) as probed:
        reader.probe(frozen)
    assert "seSparse" in str(probed.value) and frozen.disks[0].links[1].descriptor in str(probed.value)
    with pytest.raises(VmbackupError) as caught, disk_source(reader, frozen.disks[0], tempfile.gettempdir()):
        pass
    assert probed.value.code == caught.value.code == "transport_unsupported"


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "drop", "after_bytes": 5000, "count": 2},
        {"kind": "drop", "count": 1},
        {"kind": "short", "after_bytes": 7000, "count": 1},
        {"kind": "http", "status": 503, "count": 2},
    ],
)
def test_a_download_that_breaks_is_taken_up_where_it_stopped(machine: Any, fault: Any) -> None:
    moid = chained(machine)
    frozen = frozen_vm(machine.session, machine.vm_obj, moid)
    machine.control.fault(method="GET", path="-flat.vmdk", **fault)
    data = read_disk(DatastoreReader(machine.session, machine.vm_obj), frozen.disks[0])
    assert sha(data) == machine.control.sha256(machine.name, 0, "frozen")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"kind": "drop", "after_bytes": 100}, "download_short"),
        ({"kind": "lie", "after_bytes": 4096}, "download_length"),
        ({"kind": "http", "status": 500}, "download_refused"),
        ({"kind": "http", "status": 404}, "download_refused"),
        ({"kind": "http", "status": 401}, "download_refused"),
    ],
)
def test_a_download_that_never_gets_whole_fails_the_disk(machine: Any, fault: Any, code: str) -> None:
    moid = machine.control.snapshot(machine.name, "frozen")
    frozen = frozen_vm(machine.session, machine.vm_obj, moid)
    machine.control.fault(method="GET", path="-flat.vmdk", **fault)
    with pytest.raises(VmbackupError) as caught:
        read_disk(DatastoreReader(machine.session, machine.vm_obj), frozen.disks[0])
    assert caught.value.code == code
    assert "-flat.vmdk" in str(caught.value)


def test_a_server_that_ignores_range_is_caught(make_machine: Any) -> None:
    machine = make_machine(disks=[{"size_mb": 4}])
    machine.control.snapshot(machine.name, "user")
    machine.control.write_random(machine.name, 0, 0, 3 * MIB, seed=2)
    moid = machine.control.snapshot(machine.name, "frozen")
    frozen = frozen_vm(machine.session, machine.vm_obj, moid)
    machine.control.fault("ignore_range", method="GET", path="-delta.vmdk")
    with pytest.raises(VmbackupError) as caught:
        read_disk(DatastoreReader(machine.session, machine.vm_obj), frozen.disks[0])
    assert caught.value.code == "download_length"


def test_a_stalled_download_is_taken_up_again(machine: Any) -> None:
    moid = machine.control.snapshot(machine.name, "frozen")
    frozen = frozen_vm(machine.session, machine.vm_obj, moid)
    machine.control.fault("delay", method="GET", path="-flat.vmdk", delay_ms=3000, count=1)
    data = read_disk(DatastoreReader(machine.session, machine.vm_obj, timeout=0.5), frozen.disks[0])
    assert sha(data) == machine.control.sha256(machine.name, 0, "frozen")


def test_an_expired_session_is_renewed_midway(machine: Any) -> None:
    moid = machine.control.snapshot(machine.name, "frozen")
    frozen = frozen_vm(machine.session, machine.vm_obj, moid)
    reader = DatastoreReader(machine.session, machine.vm_obj)
    with disk_source(reader, frozen.disks[0], tempfile.gettempdir()):
        pass
    machine.control.expire_sessions()
    data = read_disk(reader, frozen.disks[0])
    assert sha(data) == machine.control.sha256(machine.name, 0, "frozen")


def test_a_certificate_that_is_not_trusted_is_told(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    path = read_facts(machine.session, machine.vm_obj).vmx_path
    monkeypatch.setattr(machine.session, "connection", replace(machine.session.connection, validate_certs=True))
    with pytest.raises(VmbackupError) as caught:
        DatastoreReader(machine.session, machine.vm_obj).read_small(path)
    assert caught.value.code == "esx_certificate"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", machine.site.cert)
    assert b".encoding" in DatastoreReader(machine.session, machine.vm_obj).read_small(path)


@pytest.mark.parametrize(
    ("spec", "code", "blocks"),
    [
        ({"disks": [{"size_mb": 1, "rdm": "physical"}]}, "physical_rdm", True),
        ({"disks": [{"size_mb": 1, "sharing": "sharingMultiWriter"}]}, "multi_writer", True),
        ({"disks": [{"size_mb": 1, "bus_sharing": "physical"}]}, "bus_sharing", True),
        ({"passthrough": True}, "pci_passthrough", True),
        ({"template": True, "power": "off"}, "template", True),
        ({"vtpm": True}, "vtpm", False),
        ({"encryption_key": "key-1"}, "encryption", False),
        ({"power": "suspended"}, "suspended", False),
        ({"disks": [{"size_mb": 1, "mode": "independent_persistent"}]}, "independent", False),
    ],
)
def test_facts_show_what_the_judgement_needs(make_machine: Any, spec: Any, code: str, blocks: bool) -> None:
    machine = make_machine(**spec)
    judgement = judge(read_facts(machine.session, machine.vm_obj), CoveragePolicy())
    assert [each.code for each in (judgement.blocking if blocks else judgement.refused)] == [code]


def test_facts_are_those_of_the_machine(machine: Any) -> None:
    machine.control.snapshot(machine.name, "mine")
    facts, state = read_facts(machine.session, machine.vm_obj), machine.state()
    assert (facts.name, facts.instance_uuid, facts.power_state) == (
        machine.name,
        state["instance_uuid"],
        "powered_on",
    )
    assert [disk.node for disk in facts.disks] == [each["node"] for each in state["disks"]]
    assert [disk.capacity for disk in facts.disks] == [MIB, MIB]
    assert [(each.name, each.ours) for each in facts.snapshots] == [("mine", False)]
    assert facts.esx_host and facts.esx_version and facts.boot_time and facts.change_version is not None
    assert {store.name for store in facts.datastores} >= {"datastore1"}
    assert judge(facts, CoveragePolicy()).blocking == judge(facts, CoveragePolicy()).refused == ()
