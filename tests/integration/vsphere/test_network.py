# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network between a mover and the host: downloads that stall, proxies, datacenters in folders."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere import datastore_file
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.datastore import DatastoreReader, disk_source
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.frozen import FrozenDisk, frozen_vm
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.session import Session
from tests.integration.vsphere.given import connection
from tests.lab.connect_proxy import ConnectProxy


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datastore_file, "_PAUSES", (0.01, 0.01, 0.01))


def frozen_disk(machine: Any) -> FrozenDisk:
    return frozen_vm(machine.session, machine.vm_obj, machine.control.snapshot(machine.name, "frozen")).disks[0]


def digest(reader: DatastoreReader, disk: FrozenDisk) -> str:
    data = bytearray(disk.capacity)
    with reader, disk_source(reader, disk, tempfile.gettempdir()) as source:
        source.read_into(0, memoryview(data))
    return hashlib.sha256(data).hexdigest()


def test_a_download_that_stalls_in_the_middle_is_taken_up_where_it_stopped(make_machine: Any) -> None:
    machine = make_machine(disks=[{"size_mb": 4, "fill_mb": 4}])
    disk = frozen_disk(machine)
    machine.control.fault("stall", method="GET", path="-flat.vmdk", after_bytes=1500000, count=1)
    machine.control.calls(reset=True)
    reader = DatastoreReader(machine.session, machine.vm_obj, timeout=0.5)
    assert digest(reader, disk) == machine.control.sha256(machine.name, 0, "frozen")
    assert machine.control.calls()["GET /folder"] == 3  # the descriptor, the extent, the rest of it


def test_a_download_that_stalls_every_time_fails_the_disk(machine: Any) -> None:
    disk = frozen_disk(machine)
    machine.control.fault("stall", method="GET", path="-flat.vmdk", after_bytes=1000)
    reader = DatastoreReader(machine.session, machine.vm_obj, timeout=0.2)
    with pytest.raises(VmbackupError) as caught:
        digest(reader, disk)
    assert caught.value.code == "download_short"
    assert "-flat.vmdk" in str(caught.value) and "timed out" in str(caught.value)


def test_a_free_connection_that_was_cut_is_opened_again_at_once(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, site = frozen_disk(machine), machine.site
    monkeypatch.setattr(datastore_file, "_PAUSES", ())  # a break would fail the read
    with ConnectProxy() as proxy:
        through = replace(connection(site), proxy_host=proxy.host, proxy_port=proxy.port)
        with Session.open(through) as session, DatastoreReader(session, machine.seen_by(session)) as reader:
            whole = reader.read_small(disk.links[0].descriptor)
            proxy.cut()
            assert reader.read_small(disk.links[0].descriptor) == whole


def test_api_and_downloads_go_through_the_proxy(machine: Any) -> None:
    disk, site = frozen_disk(machine), machine.site
    with ConnectProxy() as proxy:
        through = replace(connection(site), proxy_host=proxy.host, proxy_port=proxy.port)
        with Session.open(through) as session:
            tunnels = len(proxy.targets)
            reader = DatastoreReader(session, machine.seen_by(session))
            assert digest(reader, disk) == machine.control.sha256(machine.name, 0, "frozen")
        assert set(proxy.targets) == {f"{site.host}:{site.port}"} and len(proxy.targets) > tunnels > 0


def test_a_proxy_that_refuses_is_told(machine: Any) -> None:
    disk, site = frozen_disk(machine), machine.site
    with ConnectProxy() as proxy:
        through = replace(connection(site), proxy_host=proxy.host, proxy_port=proxy.port)
        with Session.open(through) as session:
            reader = DatastoreReader(session, machine.seen_by(session))
            proxy.allow = False
            with pytest.raises(VmbackupError) as caught:
                digest(reader, disk)
    assert caught.value.code == "download_short" and "403" in str(caught.value)


def test_a_datacenter_in_folders_is_named_by_its_whole_path(make_machine: Any, site: Any) -> None:
    if site.model == "esx":
        pytest.skip("an ESX host has one datacenter, in no folder")
    machine = make_machine(folder="prod/web")
    content, session = machine.session.content, machine.session
    (datacenter,) = content.rootFolder.childEntity
    outer = content.rootFolder.CreateFolder("europe")
    inner = outer.CreateFolder("köln 1")
    try:
        move(session, inner, datacenter)
        url = DatastoreReader(session, machine.vm_obj)._server.url("[datastore1] a b/c.vmdk")
        assert url == "/folder/a%20b/c.vmdk?dcPath=europe%2Fk%C3%B6ln%201%2FDC0&dsName=datastore1"
    finally:
        move(session, content.rootFolder, datacenter)


def move(session: Any, folder: Any, thing: Any) -> None:
    from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.tasks import wait_task

    wait_task(session, folder.MoveIntoFolder_Task([thing]), "moving the datacenter", timeout=30)
