# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two runs on one VM, orphans of dead runs, and waiting for one's turn."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from datetime import timedelta

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.lease import Lease
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere import claim as claiming
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.claim import Rules, claim, look, require_free
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.reaping import reap
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.snapshots import create_snapshot
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.turns import Limits, crowd, turn
from tests.integration.vsphere.given import Session, as_user, connection, lease

MINE, THEIRS = lease("7f3a"), lease("0001", controller_id="control02", run="job 99")
DAY = timedelta(hours=24)
UNLIMITED = Limits(0, None, DAY)


def rules(dead=(), orphan_after=DAY):
    return Rules("never", 5.0, lambda held: held.id in dead, orphan_after)


def create(machine, held):
    return create_snapshot(machine.session, machine.vm_obj, held, quiesce="never", timeout=5.0)


def seen(machine, held=MINE, **how):
    return look(machine.session, machine.vm_obj, held.id, rules(**how))


def test_a_run_gives_way_to_a_live_one_and_names_it(machine):
    theirs = create(machine, THEIRS)
    with pytest.raises(VmbackupError) as busy:
        claim(machine.session, machine.vm_obj, MINE, rules())
    assert busy.value.code == "vm_busy"
    for said in (machine.name, THEIRS.id, "job 99", "control02"):
        assert said in busy.value.message
    assert machine.names() == [theirs.name]


def test_of_two_that_met_the_older_snapshot_stays(machine, monkeypatch):
    """Another run snapshots between our look and our snapshot."""
    theirs = create(machine, THEIRS)
    monkeypatch.setattr(claiming, "require_free", lambda *_: None)
    with pytest.raises(VmbackupError) as busy:
        claim(machine.session, machine.vm_obj, MINE, rules())
    assert busy.value.code == "vm_busy"
    assert machine.names() == [theirs.name]


def test_two_runs_at_once_leave_one_snapshot(machine):
    outcomes = []

    def race(held: Lease) -> None:
        with Session.open(connection(machine.site)) as session:
            try:
                outcomes.append(claim(session, machine.seen_by(session), held, rules()).name)
            except VmbackupError as error:
                outcomes.append(error.code)

    threads = [threading.Thread(target=race, args=(held,)) for held in (MINE, THEIRS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (won,) = [each for each in outcomes if each.startswith("vmbackup-")]
    assert machine.names() == [won]
    assert sorted(outcomes)[0] in ("vm_busy", "vm_state", won)


@pytest.mark.parametrize(
    ("minutes", "orphaned"), [(29, False), (31, True)], ids=["lease still held", "lease has ended"]
)
def test_a_lease_ends_by_the_servers_clock(machine, minutes, orphaned):
    create(machine, THEIRS)
    machine.control.settings(clock_offset_s=minutes * 60)
    assert bool(seen(machine).orphans) == orphaned
    assert bool(seen(machine).live) != orphaned


def test_a_lease_that_cannot_be_renewed_is_left_for_longer(machine):
    with Session.open(as_user(machine.site, "norename", "RenameSnapshot")) as session:
        create_snapshot(session, machine.seen_by(session), THEIRS, quiesce="never", timeout=5.0)
    machine.control.settings(clock_offset_s=23 * 3600)
    assert seen(machine).live
    assert seen(machine, orphan_after=timedelta(hours=2)).orphans
    machine.control.settings(clock_offset_s=25 * 3600)
    assert seen(machine).orphans


def test_the_orphan_of_a_dead_owner_is_reaped_and_a_live_one_is_not(machine):
    before = machine.heads()
    machine.control.snapshot(machine.name, "mine", "of a user")
    create(machine, THEIRS)
    live = create(machine, lease("0002"))
    found = seen(machine, dead={THEIRS.id})
    assert [each.lease.id for each in found.orphans] == [THEIRS.id]
    assert reap(machine.session, machine.vm_obj, found.leftovers, timeout=5.0) == [THEIRS.id]
    assert machine.names() == sorted(["mine", live.name])
    with pytest.raises(VmbackupError):
        require_free(machine.session, machine.vm_obj, seen(machine))
    assert machine.heads() != before


def test_ones_own_snapshot_is_neither_orphan_nor_rival(machine):
    create(machine, MINE)
    machine.control.settings(clock_offset_s=48 * 3600)
    found = seen(machine)
    assert [each.lease.id for each in found.mine] == [MINE.id]
    assert not found.live
    assert not found.orphans


def test_an_esx_host_takes_as_many_as_allowed(make_machine):
    first, second, third = make_machine(), make_machine(), make_machine()
    limits = Limits(2, None, DAY)
    create(first, MINE)
    assert crowd(third.session, third.vm_obj, limits) == ""
    create(second, THEIRS)
    assert "max_per_esx_host=2" in crowd(third.session, third.vm_obj, limits)
    assert crowd(third.session, third.vm_obj, UNLIMITED) == ""
    assert crowd(first.session, first.vm_obj, limits) == "", "a VM does not count itself"


def test_a_datastore_takes_as_many_as_allowed(make_machine):
    first = make_machine(datastore="datastore2", disks=[{"size_mb": 1, "datastore": "datastore2"}])
    same = make_machine(disks=[{"size_mb": 1}, {"size_mb": 1, "datastore": "datastore2"}])
    other = make_machine(disks=[{"size_mb": 1}])
    create(first, MINE)
    limits = Limits(None, 1, DAY)
    assert "max_per_datastore=1" in crowd(same.session, same.vm_obj, limits)
    assert crowd(other.session, other.vm_obj, limits) == ""


def test_an_orphan_does_not_take_a_turn(make_machine):
    first, second = make_machine(), make_machine()
    create(first, MINE)
    first.control.settings(clock_offset_s=3600)
    assert crowd(second.session, second.vm_obj, Limits(1, 1, DAY)) == ""


def test_who_gets_no_turn_is_told_why(make_machine, tmp_path):
    first, second = make_machine(), make_machine()
    create(first, MINE)
    error = missed(second, Limits(1, 0, DAY), tmp_path)
    assert error.code == "no_turn"
    assert second.name in error.message
    assert "max_per_esx_host" in error.message


def missed(machine, limits, folder):
    """Wait shortly for a turn that must not come; return the error."""
    with ExitStack() as stack, pytest.raises(VmbackupError) as late:
        stack.enter_context(turn(machine.session, machine.vm_obj, limits, str(folder), wait=0.2, pause=0.05))
    return late.value


def test_a_turn_comes_when_another_vm_is_done(make_machine, tmp_path):
    first, second = make_machine(), make_machine()
    taken = create(first, MINE)
    done = threading.Timer(0.5, first.control.remove_snapshot, (first.name, taken.moid))
    done.start()
    with turn(second.session, second.vm_obj, Limits(1, 1, DAY), str(tmp_path), wait=30.0, pause=0.05) as waited:
        assert waited >= 0.4
    done.join()


def test_nobody_counts_while_another_of_this_controller_takes_its_turn(make_machine, tmp_path):
    machine = make_machine()
    with turn(machine.session, machine.vm_obj, UNLIMITED, str(tmp_path), wait=1.0):
        assert missed(machine, UNLIMITED, tmp_path).code == "no_turn"
