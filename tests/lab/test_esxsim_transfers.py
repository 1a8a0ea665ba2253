# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading and writing a datastore over HTTPS, exports, changed blocks."""

from __future__ import annotations

import http.client
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim

from tests.lab.client import Client, disks, sha256
from tests.lab.simulator import Simulator

MIB = 1 << 20


def test_ranges_are_exact(sim: Simulator, client: Client, name: str) -> None:
    state = sim.control.create_vm(name, [{"size_mb": 1, "fill_mb": 1}], power="off")
    flat = (Path(state["dir"]) / f"{name}-flat.vmdk").read_bytes()
    for header, start, end in [
        ("0-511", 0, 512),
        ("1000-1999", 1000, 2000),
        ("1048000-", 1048000, MIB),
        ("-100", MIB - 100, MIB),
    ]:
        answer, data = client.folder(f"{name}/{name}-flat.vmdk", headers={"Range": f"bytes={header}"})
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{MIB}"
        assert answer.headers["Content-Length"] == str(end - start)
        assert data == flat[start:end]
    answer = client.folder(f"{name}/{name}-flat.vmdk", headers={"Range": f"bytes={MIB}-"})[0]
    assert answer.status == 416
    answer, data = client.folder(f"{name}/{name}-flat.vmdk", "HEAD")
    assert (answer.headers["Content-Length"], data) == (str(MIB), b"")


def test_the_live_head_is_locked_and_what_is_frozen_is_not(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name, [{"size_mb": 1}])
    machine = client.vm(name)
    assert client.folder(f"{name}/{name}-flat.vmdk")[0].status == 500
    client.snapshot(machine, "one")
    assert client.folder(f"{name}/{name}-flat.vmdk")[0].status == 200
    assert client.folder(f"{name}/{name}-000001-delta.vmdk")[0].status == 500
    assert client.folder(f"{name}/{name}-000001.vmdk")[0].status == 200
    assert client.folder(f"{name}/nothing")[0].status == 404


def test_downloads_want_a_session_or_a_password(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name)
    path = f"{name}/{name}.vmx"
    assert client.folder(path, headers={"Cookie": ""})[0].status == 401
    assert client.folder(path, headers={"Cookie": "", "Authorization": "Basic cm9vdDpWTXdhcmUxIQ=="})[0].status == 200
    assert client.folder(path, headers={"Cookie": "", "Authorization": "Basic cm9vdDp3cm9uZw=="})[0].status == 401
    sim.control.expire_sessions()
    assert client.folder(path)[0].status == 401
    with pytest.raises(vim.fault.NotAuthenticated):
        client.si.RetrieveContent().rootFolder.childEntity[0].name  # noqa: B018


@pytest.mark.parametrize(
    "fault, seen",
    [
        ({"kind": "http", "status": 503}, 503),
        ({"kind": "lie", "after_bytes": 1000}, 1000),
        ({"kind": "drop", "after_bytes": 70000}, "cut"),
        ({"kind": "short", "after_bytes": 70000}, "cut"),
        ({"kind": "corrupt", "after_bytes": 70000}, "differs"),
        ({"kind": "ignore_range"}, 200),
    ],
)
def test_downloads_fail_as_they_are_told(sim: Simulator, client: Client, name: str, fault: dict, seen: object) -> None:
    state = sim.control.create_vm(name, [{"size_mb": 1, "fill_mb": 1}], power="off")
    flat = (Path(state["dir"]) / f"{name}-flat.vmdk").read_bytes()
    sim.control.fault(**fault, path=f"{name}-flat", method="GET", skip=1, count=1)
    get = partial(client.folder, f"{name}/{name}-flat.vmdk", headers={"Range": "bytes=0-199999"})
    assert get()[1] == flat[:200000]
    if seen == "cut":
        with pytest.raises(http.client.IncompleteRead) as cut:
            get()
        assert len(cut.value.partial) == 70000
    else:
        answer, data = get()
        outcome = {206: "differs" if len(data) == 200000 and data != flat[:200000] else len(data)}
        assert outcome.get(answer.status, answer.status) == seen
    assert get()[1] == flat[:200000]


def test_a_full_datastore_refuses_uploads_and_snapshots(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name, datastore="ds two")
    sim.control.datastore("ds two", free_mb=3)
    machine = client.vm(name)
    try:
        with pytest.raises(vim.fault.NoDiskSpace):
            client.snapshot(machine, "one")
        assert client.folder("x/y", "PUT", body=b"z" * 4 * MIB, store="ds two")[0].status == 500
        assert client.folder("x/y", "PUT", body=b"z" * MIB, store="ds two")[0].status == 201
        assert machine.datastore[0].summary.freeSpace <= 2 * MIB
    finally:
        sim.control.datastore("ds two", capacity_mb=4096)


def test_an_export_of_a_snapshot_is_its_content(sim: Simulator, client: Client, name: str, tmp_path: Path) -> None:
    sim.control.create_vm(name, [{"size_mb": 48, "fill_mb": 2}])
    machine = client.vm(name)
    sim.control.write_random(name, 0, 40 * MIB, 8192)
    snapshot = client.snapshot(machine, "one")
    sim.control.write_random(name, 0, 0, 65536)
    lease = snapshot.ExportSnapshot()
    (device,) = lease.info.deviceUrl
    assert device.url.startswith("https://*:" if sim.model == "esx" else f"https://{sim.host}:")
    answer, data = client.request("GET", "/" + device.url.split("/", 3)[3])
    assert answer.status == 200
    lease.HttpNfcLeaseComplete()
    assert client.request("GET", "/" + device.url.split("/", 3)[3])[0].status == 404
    stream, raw = tmp_path / "e.vmdk", tmp_path / "e.raw"
    stream.write_bytes(data)
    subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(stream), str(raw)], check=True, timeout=60)
    assert sha256(raw.read_bytes()) == sim.control.sha256(name, 0, "one") != sim.control.sha256(name)


def test_a_lease_that_is_not_renewed_ends(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name)
    snapshot = client.snapshot(client.vm(name), "one")
    sim.control.settings(lease_timeout_s=1)
    lease = snapshot.ExportSnapshot()
    path = "/" + lease.info.deviceUrl[0].url.split("/", 3)[3]
    for _turn in range(3):
        time.sleep(0.5)
        lease.HttpNfcLeaseProgress(percent=1)
    assert client.request("GET", path)[0].status == 200
    time.sleep(1.2)
    assert client.request("GET", path)[0].status == 404


def test_changed_blocks_are_those_since_the_change_id(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name, [{"size_mb": 16, "fill_mb": 2}], cbt=True)
    sim.control.settings(max_areas=1)
    machine = client.vm(name)

    def areas(snapshot: object, change_id: str) -> list[tuple[int, int]]:
        found, offset = [], 0
        while offset < 16 * MIB:
            answer = machine.QueryChangedDiskAreas(
                snapshot=snapshot, deviceKey=2000, startOffset=offset, changeId=change_id
            )
            found += [(a.start, a.length) for a in answer.changedArea]
            offset = answer.startOffset + answer.length
        return found

    first = client.snapshot(machine, "one")
    assert areas(first, "*") == [(0, 2 * MIB)]
    for offset in (5 * MIB, 9 * MIB + 512):
        sim.control.write_random(name, 0, offset, 512)
    second = client.snapshot(machine, "two")
    change_id = disks(first.config)[0].backing.changeId
    assert areas(second, change_id) == [(5 * MIB, 65536), (9 * MIB, 65536)]
    with pytest.raises(vim.fault.FileFault):
        areas(second, "52 00/7")
    WaitForTask(machine.RemoveAllSnapshots_Task())
