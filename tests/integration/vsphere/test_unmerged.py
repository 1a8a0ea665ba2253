# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that a removal of ours left unmerged: what proves it, and what speaks against it."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.owner_lock import hold
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.reaping import reap
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.snapshot_removal import remove_snapshot
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.snapshots import create_snapshot
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.unmerged import unmerged_by_us
from tests.integration.vsphere.given import calm, lease

LEASE = lease()


def cut_off(machine, folder):
    """Snapshot, remove, and end before the disks are merged."""
    create_snapshot(machine.session, machine.vm_obj, LEASE, quiesce="never", timeout=5.0)
    machine.fault("consolidation", method="RemoveSnapshot_Task")
    machine.fault("consolidation", method="ConsolidateVMDisks_Task")
    with pytest.raises(VmbackupError) as error:
        remove_snapshot(machine.session, machine.vm_obj, LEASE.id, timeout=5.0, lock_dir=str(folder), tries=1)
    assert error.value.code == "snapshot_not_removed"
    calm(machine.site)
    assert machine.state()["consolidation_needed"]


def left(machine, folder):
    return unmerged_by_us(machine.session, machine.vm_obj, str(folder), machine.state()["instance_uuid"])


def test_what_our_removal_left_is_merged_and_then_forgotten(machine, tmp_path):
    machine.control.snapshot(machine.name, "user's own")
    before = machine.heads()
    cut_off(machine, tmp_path)
    assert left(machine, tmp_path) == LEASE.id
    assert reap(machine.session, machine.vm_obj, [LEASE.id], timeout=5.0, lock_dir=str(tmp_path)) == [LEASE.id]
    assert machine.heads() == before and machine.names() == ["user's own"]
    assert not machine.state()["consolidation_needed"]
    machine.control.set_vm(machine.name, consolidation_needed=True)  # of somebody else, later
    assert left(machine, tmp_path) == "" and list(tmp_path.iterdir()) == []


def test_a_removal_that_went_well_leaves_no_mark(machine, tmp_path):
    create_snapshot(machine.session, machine.vm_obj, LEASE, quiesce="never", timeout=5.0)
    remove_snapshot(machine.session, machine.vm_obj, LEASE.id, timeout=5.0, lock_dir=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "against", ["another node", "needed before", "a snapshot since", "a removal since", "being packed", "merged since"]
)
def test_without_proof_nothing_is_merged(machine, tmp_path, against):
    mine, other = tmp_path / "mine", tmp_path / "other"
    machine.control.snapshot(machine.name, "user's own")
    machine.control.set_vm(machine.name, consolidation_needed=against == "needed before")
    cut_off(machine, mine)
    with ExitStack() as stack:
        if against == "a snapshot since":
            machine.control.snapshot(machine.name, "user's second")
        if against == "a removal since":
            machine.control.remove_snapshot(machine.name, "user's own")
            machine.control.set_vm(machine.name, consolidation_needed=True)
        if against == "being packed":
            stack.enter_context(hold(str(mine), machine.state()["instance_uuid"], LEASE.id))
        if against == "merged since":
            machine.control.set_vm(machine.name, consolidation_needed=False)
        assert left(machine, other if against == "another node" else mine) == ""
