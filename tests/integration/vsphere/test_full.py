# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One full backup against a real simulator, while somebody else changes the VM under it."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.folder import StoreTree
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.coverage import CoveragePolicy
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere import full
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.full import FullResult, make_full
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.full_order import FullOrder
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.packing import PackingOptions
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.snapshots import create_snapshot

from .given import lease


def packed(machine: Any, root: Path) -> FullResult:
    """Make a full of the lease's backup id in the store `root`."""
    backup_id = lease().id
    order = FullOrder(
        vm=machine.name,
        backup_id=backup_id,
        run="job 17",
        controller_id="control01",
        policy=CoveragePolicy(),
        quiesce="never",
        task_timeout=10.0,
        packing=PackingOptions("zlib", None, 1, False),
        scratch=str(root),
        collection_version="0",
        node="here",
        now=lambda: datetime.now(timezone.utc),
        verify=False,
        restartable=True,
    )
    return make_full(
        machine.session, machine.vm_obj, order, lambda: StoreTree(str(root)).incoming(machine.name, backup_id)
    )


def before_the_last_byte(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have something happen once, when all bytes of the first reading were read."""
    pack, acts = full.pack, [act]

    def packing(*given: Any, after_last_byte: Callable[[], None], **options: Any) -> Any:
        def then() -> None:
            if acts:
                acts.pop()()
            after_last_byte()

        return pack(*given, after_last_byte=then, **options)

    monkeypatch.setattr(full, "pack", packing)


def test_a_backup_whose_disks_were_merged_by_others_while_they_were_read_is_not_trusted(
    machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.control.snapshot(machine.name, "user one")
    machine.control.write_random(machine.name, 0, 0, 4096)
    create_snapshot(machine.session, machine.vm_obj, lease(), quiesce="never", timeout=10.0)
    before_the_last_byte(monkeypatch, lambda: machine.control.remove_snapshot(machine.name, "user one"))
    with pytest.raises(VmbackupError) as caught:
        packed(machine, tmp_path)
    assert caught.value.code == "disks_moved", caught.value
    assert StoreTree(str(tmp_path)).backups(machine.name) == []
    assert machine.names() == [lease().name]  # the caller releases it


def test_a_vm_that_is_powered_on_while_it_is_packed_is_packed_again_under_a_snapshot(
    make_machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = make_machine(power="off")
    before_the_last_byte(monkeypatch, lambda: machine.control.set_vm(machine.name, power="on"))
    assert packed(machine, tmp_path).manifest.consistency == "crash"
    assert machine.names() == []


def test_a_vm_that_is_powered_on_and_taken_by_another_run_while_it_is_packed_is_left_to_that_run(
    make_machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, other = make_machine(power="off"), lease("beef", controller_id="control02")

    def lost() -> None:
        machine.control.set_vm(machine.name, power="on")
        create_snapshot(machine.session, machine.vm_obj, other, quiesce="never", timeout=10.0)

    before_the_last_byte(monkeypatch, lost)
    with pytest.raises(VmbackupError) as caught:
        packed(machine, tmp_path)
    assert caught.value.code == "vm_busy", caught.value
    assert machine.names() == [other.name]
    assert StoreTree(str(tmp_path)).backups(machine.name) == []
