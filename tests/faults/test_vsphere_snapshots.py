# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking and removing the snapshot, when ESX does not do as it is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .ground import Ground, Machine

_ID = "20260101T000000Z-full-0001"
# Named like ours: without a description, with words, with our JSON of another backup, and with JSON of somebody else.
_LIKE_OURS = (
    ("vmbackup-" + _ID, ""),
    ("vmbackup-20260101T000000Z-full-0002", "before the upgrade"),
    ("vmbackup-20260101T000000Z-full-0003", '{"id": "%s", "run": "", "controller_id": "x"}' % _ID),
    ("vmbackup-20260101T000000Z-full-0004", '{"id": "20260101T000000Z-full-0004", "tool": "another"}'),
    ("vmbackup", "vmbackup"),
)


def test_snapshots_of_users_stay_as_they_are(ground: Ground) -> None:
    """Below ours, on another branch, named like ours; every run before and after the first leaves them too."""
    chain = ground.vm("chain", snapshots=(("base", "mine"), ("second 'quoted'", "ünï")))
    alike = ground.vm("alike", snapshots=_LIKE_OURS)
    branched = ground.vm("branched", "vc1", snapshots=(("root", ""), ("left", ""), ("left leaf", "")))
    branched.control.revert(branched.moid, "root")  # a new branch, and the machine is off
    branched.control.set_vm(branched.moid, power="on")
    for machine in (chain, alike, branched):
        machine.control.write_random(machine.moid, 0, 1 << 20, 1 << 20, seed=7)  # lies in the newest delta
    outcome = ground.run()
    assert outcome.rc == 0, outcome.output
    for machine in (chain, alike, branched):
        ground.require_backup(machine, outcome.good(machine.guest))
    before = [machine.state()["disks"] for machine in (chain, alike, branched)]
    assert ground.run("cleanup.yml").rc == 0
    assert [machine.state()["disks"] for machine in (chain, alike, branched)] == before
    ground.require_calm(chain, alike, branched)


def test_a_snapshot_that_is_hard_to_get(ground: Ground) -> None:
    """Quiescing fails, the task fails, its answer is lost, it hangs and ends when nobody waits for it any more."""
    required, never = {"vmbackup_quiesce": "required"}, {"vmbackup_quiesce": "never"}
    machines = {
        "tools-required": ground.vm("tools-required", tools=False, variables=required),
        "tools-preferred": ground.vm("tools-preferred", tools=False),
        "guest-required": ground.vm("guest-required", variables=required),
        "guest-preferred": ground.vm("guest-preferred"),
        "task-fails": ground.vm("task-fails", variables=never),
        "task-refused": ground.vm("task-refused", variables=never),
        "answer-lost": ground.vm("answer-lost"),
        "hangs": ground.vm("hangs", variables={**never, "vmbackup_task_timeout": 1}),
    }
    for guest in ("guest-required", "guest-preferred"):
        machines[guest].control.set_vm(machines[guest].moid, fail_quiesce=True)
    fault(machines["task-fails"], "task", fault="GenericVmConfigFault", message="The parent disk was changed")
    fault(machines["task-refused"], "soap", fault="TaskInProgress")
    fault(machines["answer-lost"], "lost", count=1)
    fault(machines["hangs"], "hang")
    outcome = ground.run()

    outcome.failed("tools-required", "quiesce_failed", "'tools-required'", "VMware Tools is not running", "quiesce")
    outcome.failed("guest-required", "quiesce_failed", "'guest-required'", "could not be quiesced", "quiesce")
    outcome.failed("task-fails", "esx_fault", "'task-fails'", "The parent disk was changed", "events of this object")
    outcome.failed("task-refused", "vm_state", "'task-refused'", "TaskInProgress", "wait")
    outcome.failed("hangs", "task_stalled", "'hangs'", "no progress for 1 s", "task_timeout")
    for guest in ("tools-required", "guest-required", "task-fails", "task-refused", "hangs"):
        ground.require_nothing(machines[guest])
    for guest, why in (
        ("tools-preferred", "VMware Tools is not running"),
        ("guest-preferred", "could not be quiesced"),
    ):
        described = ground.require_backup(machines[guest], outcome.good(guest, "crash", why))
        assert described["consistency"] == "crash"
        assert described["snapshot"]["quiesced"] is False
    described = ground.require_backup(machines["answer-lost"], outcome.good("answer-lost", "application"))
    assert described["consistency"] == "application"
    ground.require_calm(*machines.values())

    late = machines["hangs"]
    late.control.clear_faults()
    until(lambda: bool(late.ours()))  # the task that nobody waits for any more
    repaired = ground.run_on(late)
    ground.require_backup(late, repaired.good("hangs"))
    ground.require_calm(late)


def test_a_snapshot_that_is_hard_to_remove(ground: Ground) -> None:
    """A backup whose snapshot stays is complete and in the store, its VM fails loudly, and the next run repairs it."""
    names = ("once", "lost", "consolidate", "locked-a-while", "never", "locked", "hangs")
    machines = {guest: ground.vm(guest) for guest in names}
    remove, consolidate = "RemoveSnapshot_Task", "ConsolidateVMDisks_Task"
    fault(machines["once"], "task", remove, fault="GenericVmConfigFault", count=1)
    fault(machines["lost"], "lost", remove, count=1)
    fault(machines["consolidate"], "consolidation", remove, count=1)
    fault(machines["locked-a-while"], "consolidation", remove, count=1)
    fault(machines["locked-a-while"], "task", consolidate, fault="FileLocked", count=2)  # until the copy has ended
    fault(machines["never"], "task", remove, fault="GenericVmConfigFault", message="A file is missing")
    fault(machines["locked"], "consolidation", remove)
    fault(machines["locked"], "task", consolidate, fault="FileLocked")
    fault(machines["hangs"], "hang", remove)
    outcome = ground.run()

    for guest in names[:4]:
        ground.require_backup(machines[guest], outcome.good(guest))
        ground.require_calm(machines[guest])
    first = {}
    for guest, why in (("never", "A file is missing"), ("locked", "FileLocked"), ("hangs", "no progress")):
        outcome.failed(guest, "snapshot_not_removed", f"'{guest}'", "is complete, but", why, "cleanup.yml")
        (backup,) = ground.backups(machines[guest])
        ground.require_backup(machines[guest], backup.name)
        first[guest] = backup.name
    assert machines["never"].ours() == ["vmbackup-" + first["never"]]
    assert machines["locked"].state()["consolidation_needed"]

    machines["never"].control.clear_faults()
    until(lambda: machines["hangs"].ours() == [])  # the task goes on, and ends
    again = ground.run()
    for guest in ("never", "locked", "hangs"):
        assert [path.name for path in ground.backups(machines[guest])] == sorted([first[guest], again.good(guest)])
    ground.require_calm(*machines.values())


def fault(machine: Machine, kind: str, method: str = "CreateSnapshot_Task", **what: Any) -> None:
    machine.control.fault(kind, vm=machine.moid, method=method, **what)


def until(done: Callable[[], bool], limit: float = 20.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + limit
    while not done():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.1)
