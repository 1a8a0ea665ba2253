# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking, renewing and removing snapshots against a simulated host, with everything that goes wrong on the way."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.session import Session
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.snapshot_removal import remove_snapshot
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.snapshot_tree import (
    find_snapshot,
    our_snapshots,
    renew_lease,
)
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.snapshots import create_snapshot
from tests.integration.vsphere.given import as_user, lease

LEASE = lease()


def create(machine, **changes):
    options = {"quiesce": "never", "timeout": 2.0, **changes}
    return create_snapshot(machine.session, machine.vm_obj, options.pop("lease", LEASE), **options)


def remove(machine, **changes):
    options = {"timeout": 2.0, "pause": 0.05, **changes}
    return remove_snapshot(machine.session, machine.vm_obj, LEASE.id, **options)


def test_a_snapshot_is_found_by_what_it_says_of_itself(machine):
    taken = create(machine)
    (found,) = our_snapshots(machine.session, machine.vm_obj)
    assert found.moid == taken.moid
    assert found.lease == taken.lease
    assert found.name == "vmbackup-" + LEASE.id
    assert found.lease.run == "job 17"
    assert abs(found.lease.renewed - found.created) < timedelta(seconds=10)


def test_no_snapshot_has_memory(machine):
    create(machine, quiesce="required")
    files = machine.state()["files"]
    assert any(name.endswith(".vmsn") for name in files)
    assert not [name for name in files if name.endswith(".vmem")]


def test_the_lease_is_renewed_by_the_servers_clock(machine):
    taken = create(machine)
    machine.control.settings(clock_offset_s=3600)
    renewed = renew_lease(machine.session, machine.vm_obj, taken, taken.lease)
    assert timedelta(minutes=59) < renewed.lease.renewed - taken.lease.renewed < timedelta(minutes=61)
    assert find_snapshot(machine.session, machine.vm_obj, LEASE.id).lease == renewed.lease


def test_a_user_who_may_not_rename_gets_a_lease_that_says_so(machine):
    with Session.open(as_user(machine.site, "norename", "RenameSnapshot")) as session:
        taken = create_snapshot(session, machine.seen_by(session), LEASE, quiesce="never", timeout=5.0)
    assert taken.lease.renewed is None
    assert find_snapshot(machine.session, machine.vm_obj, LEASE.id).lease.renewed is None


def test_quiescing_is_had_when_the_tools_run(machine):
    taken = create(machine, quiesce="required")
    assert taken.quiesced
    assert taken.note == ""
    assert machine.state()["snapshots"][0]["quiesced"]


@pytest.mark.parametrize("trouble", ["tools", "fault"])
def test_preferred_quiescing_falls_back_and_says_why(machine, trouble):
    trouble_with_quiescing(machine, trouble)
    taken = create(machine, quiesce="preferred")
    assert not taken.quiesced
    assert "quiesce" in taken.note
    assert machine.names() == [taken.name]


@pytest.mark.parametrize("trouble", ["tools", "fault"])
def test_required_quiescing_fails_and_leaves_nothing(machine, trouble):
    trouble_with_quiescing(machine, trouble)
    with pytest.raises(VmbackupError) as failed:
        create(machine, quiesce="required")
    assert failed.value.code == "quiesce_failed"
    assert machine.name in failed.value.message
    assert machine.names() == []


def trouble_with_quiescing(machine, trouble):
    if trouble == "tools":
        machine.control.set_vm(machine.name, tools=False)
    else:
        machine.fault("task", method="CreateSnapshot_Task", fault="ApplicationQuiesceFault", count=1)


def test_a_task_that_fails_names_its_cause_and_leaves_nothing(machine):
    machine.fault("task", method="CreateSnapshot_Task", fault="NoDiskSpace")
    with pytest.raises(VmbackupError) as failed:
        create(machine)
    assert failed.value.code == "datastore_full"
    assert machine.names() == []


def test_a_task_that_hangs_fails_for_lack_of_progress(machine):
    before = machine.heads()
    machine.fault("hang", method="CreateSnapshot_Task")
    with pytest.raises(VmbackupError) as failed:
        create(machine, timeout=1.0)
    assert failed.value.code == "task_stalled"
    machine.control.clear_faults()
    late = wait_for(lambda: find_snapshot(machine.session, machine.vm_obj, LEASE.id))
    assert late.lease.renewed is None  # nobody holds it: the next run reaps it
    remove(machine)
    assert machine.heads() == before


def wait_for(look):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come")


def test_a_slow_task_with_progress_is_waited_for(machine):
    machine.control.settings(task_delay_ms=3000)
    assert create(machine, timeout=1.5).name in machine.names()


@pytest.mark.parametrize("kind", ["lost", "drop"])
def test_an_answer_that_is_lost_does_not_make_a_second_snapshot(machine, kind):
    machine.fault(kind, method="CreateSnapshot_Task", count=1)
    taken = create(machine)
    assert machine.names() == [taken.name]
    assert taken.lease.renewed is not None


def test_an_answer_lost_from_a_slow_task_does_not_make_a_second_snapshot(machine):
    machine.control.settings(task_delay_ms=1000)
    machine.fault("lost", method="CreateSnapshot_Task", count=1)
    taken = create(machine, timeout=5.0)
    machine.control.settings(task_delay_ms=0)
    assert machine.names() == [taken.name]


def test_removal_puts_every_disk_back(machine):
    before = machine.heads()
    create(machine)
    assert machine.heads() != before
    removal = remove(machine)
    assert (removal.tries, removal.consolidated) == (1, False)
    assert machine.heads() == before
    assert machine.names() == []


def test_removing_twice_is_no_error(machine):
    create(machine)
    remove(machine)
    assert remove(machine).tries == 0


@pytest.mark.parametrize("kind", ["task", "soap", "lost", "drop"])
def test_a_removal_that_fails_once_is_tried_again(machine, kind):
    before = machine.heads()
    create(machine)
    machine.fault(kind, method="RemoveSnapshot_Task", fault="GenericVmConfigFault", count=1)
    assert remove(machine).tries >= 1
    assert machine.heads() == before
    assert machine.names() == []


def test_a_removal_that_always_fails_is_loud(machine):
    taken = create(machine)
    machine.fault("task", method="RemoveSnapshot_Task", fault="GenericVmConfigFault")
    with pytest.raises(VmbackupError) as failed:
        remove(machine, tries=3)
    assert failed.value.code == "snapshot_not_removed"
    assert machine.name in failed.value.message
    assert LEASE.id in failed.value.message
    assert machine.names() == [taken.name]


def test_a_removal_without_the_right_is_not_repeated(machine):
    create(machine)
    with Session.open(as_user(machine.site, "noremove", "RemoveSnapshot_Task")) as session:
        theirs = machine.seen_by(session)
        with pytest.raises(VmbackupError) as failed:
            remove_snapshot(session, theirs, LEASE.id, timeout=2.0, pause=60.0)
    assert failed.value.code == "snapshot_not_removed"
    assert "RemoveSnapshot" in failed.value.message


def test_disks_that_need_consolidation_are_consolidated(machine):
    before = machine.heads()
    create(machine)
    machine.fault("consolidation", method="RemoveSnapshot_Task", count=1)
    removal = remove(machine)
    assert removal.consolidated
    assert machine.heads() == before
    assert not machine.state()["consolidation_needed"]


def test_consolidation_that_fails_once_is_tried_again(machine):
    before = machine.heads()
    create(machine)
    machine.fault("consolidation", method="RemoveSnapshot_Task", count=1)
    machine.fault("consolidation", method="ConsolidateVMDisks_Task", count=1)
    assert remove(machine).tries == 2
    assert machine.heads() == before


def test_consolidation_that_always_fails_is_loud_and_the_next_run_repairs(machine):
    before = machine.heads()
    create(machine)
    machine.fault("consolidation", method="RemoveSnapshot_Task", count=1)
    machine.fault("task", method="ConsolidateVMDisks_Task", fault="FileLocked")
    with pytest.raises(VmbackupError) as failed:
        remove(machine, tries=2)
    assert failed.value.code == "snapshot_not_removed"
    machine.control.clear_faults()
    assert remove(machine).consolidated
    assert machine.heads() == before


def test_a_session_that_ends_between_any_two_calls_is_opened_again(machine):
    before = machine.heads()
    machine.control.expire_sessions()
    create(machine)
    machine.control.expire_sessions()
    assert find_snapshot(machine.session, machine.vm_obj, LEASE.id)
    machine.control.expire_sessions()
    remove(machine)
    assert machine.heads() == before


def test_a_session_that_ends_while_a_task_runs_is_opened_again(machine):
    machine.control.settings(task_delay_ms=800, idle_timeout_s=0.05)
    assert create(machine, timeout=5.0)


@pytest.mark.parametrize("current", [True, False])
def test_snapshots_of_users_stay_as_they_are(machine, current):
    """Below ours, above ours, on another branch, and named like ours."""
    machine.control.snapshot(machine.name, "below")
    machine.control.snapshot(machine.name, "branch")
    machine.control.revert(machine.name, "below")
    machine.control.snapshot(machine.name, "vmbackup-20261122T010000Z-full-0000", "before the upgrade")
    theirs, before = machine.names(), machine.heads()
    create(machine)
    if not current:
        machine.control.snapshot(machine.name, "above")
        theirs, before = sorted([*theirs, "above"]), machine.heads()
    remove(machine)
    assert machine.names() == theirs
    assert machine.heads() == before


def test_our_snapshot_is_removed_after_a_user_went_back_to_another_branch(machine):
    machine.control.snapshot(machine.name, "below")
    create(machine)
    machine.control.revert(machine.name, "below")
    before = machine.heads()
    remove(machine)
    assert machine.names() == ["below"]
    assert machine.heads() == before


def test_what_the_guest_writes_meanwhile_is_kept(machine):
    create(machine)
    machine.control.write_random(machine.name, 0, 4096, 8192)
    written = machine.control.sha256(machine.name)
    remove(machine)
    assert machine.control.sha256(machine.name) == written
