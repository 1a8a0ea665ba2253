# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deltas of users' snapshots, read in few requests however their grains lie."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.datastore import DatastoreReader, disk_source
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.frozen import FrozenDisk, frozen_vm

MIB = 1 << 20
DISK = 24 * MIB
PIECE = 16 << 10


def frozen_disk(machine: Any) -> FrozenDisk:
    moid = machine.control.snapshot(machine.name, "frozen")
    return frozen_vm(machine.session, machine.vm_obj, moid).disks[0]


def scattered(make_machine: Any) -> Any:
    """Return a VM whose user's delta holds a bit of every part of the disk, in no order, and more than memory keeps."""
    machine = make_machine(disks=[{"size_mb": DISK // MIB, "fill_mb": DISK // MIB}])
    machine.control.snapshot(machine.name, "user")
    places = random.Random(5)
    for number in range(1000):
        machine.control.write_random(machine.name, 0, places.randrange(DISK // PIECE) * PIECE, PIECE, seed=number + 1)
    return machine


def digest(machine: Any, disk: FrozenDisk, scratch: Path) -> str:
    found, buffer = hashlib.sha256(), memoryview(bytearray(MIB))
    with DatastoreReader(machine.session, machine.vm_obj) as reader, disk_source(reader, disk, str(scratch)) as source:
        for at in range(0, source.size, MIB):
            source.read_into(at, buffer)
            found.update(buffer)
    return found.hexdigest()


def test_a_delta_with_scattered_grains_takes_a_request_a_mebibyte_at_most(make_machine: Any, tmp_path: Path) -> None:
    machine = scattered(make_machine)
    disk = frozen_disk(machine)
    machine.control.calls(reset=True)
    assert digest(machine, disk, tmp_path) == machine.control.sha256(machine.name, 0, "frozen")
    with DatastoreReader(machine.session, machine.vm_obj) as reader:
        size = reader.open(disk.links[1].extent).size
    descriptors, base, asked_for_size, copy = 2, 1, 2, 1  # its size once by the reader, once here
    assert machine.control.calls()["GET /folder"] <= descriptors + base + asked_for_size + -(-size // MIB) + copy
    assert not list(tmp_path.iterdir())


def test_a_delta_that_was_written_in_order_needs_no_copy(make_machine: Any, tmp_path: Path) -> None:
    machine = make_machine(disks=[{"size_mb": 8, "fill_mb": 8}])
    machine.control.snapshot(machine.name, "user")
    machine.control.write_random(machine.name, 0, MIB // 2, 6 * MIB, seed=3)
    disk = frozen_disk(machine)
    machine.control.calls(reset=True)
    assert digest(machine, disk, tmp_path / "there is no such folder") == machine.control.sha256(
        machine.name, 0, "frozen"
    )
    assert machine.control.calls()["GET /folder"] <= 12


def test_a_full_scratch_folder_is_told_with_what_helps(
    make_machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = scattered(make_machine)
    disk = frozen_disk(machine)
    room = os.statvfs(tmp_path)
    full = os.statvfs_result((*room[:3], 1, 1, *room[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(VmbackupError) as caught:
        digest(machine, disk, tmp_path)
    assert caught.value.code == "scratch_full"
    assert disk.links[1].extent in str(caught.value) and str(tmp_path) in str(caught.value)
    assert "TMPDIR" in caught.value.hint


def test_requests_share_one_connection(make_machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = make_machine()
    machine.control.snapshot(machine.name, "user")
    moid = machine.control.snapshot(machine.name, "frozen")
    frozen = frozen_vm(machine.session, machine.vm_obj, moid)
    reader = DatastoreReader(machine.session, machine.vm_obj)
    opened = []
    connect = reader._server.connect
    monkeypatch.setattr(reader._server, "connect", lambda: opened.append(1) or connect())
    with reader:
        reader.probe(frozen)
        for file in frozen.files:
            reader.read_small(file.path)
    assert len(opened) == 1
