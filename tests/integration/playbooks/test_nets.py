# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role does on its way out: the second net, the user's tasks, and a result that is of this run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.lab.fixtures import LabVm, Played

Make = Callable[..., LabVm]
Play = Callable[..., Played]


def written(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def played_by(entry: str, **variables: str) -> dict[str, object]:
    """Return a play that runs an entry point of the role on the guests."""
    role = {"name": "vmbackup.esx.backup", "tasks_from": entry}
    return {
        "name": entry,
        "hosts": "guests",
        "gather_facts": False,
        "tasks": [{"name": entry, "ansible.builtin.import_role": role, "vars": variables}],
    }


def test_a_vm_that_is_refused_is_not_touched_on_the_way_out(fresh_vm: Make, play: Play) -> None:
    vm = fresh_vm(power="on")
    vm.control.set_vm(vm.name, consolidation_needed=True)
    vm.control.calls(reset=True)
    done = play("full_backup.yml", "--limit", vm.name)
    assert done.rc == 2 and "consolidation" in done.output, done.output
    assert vm.state()["consolidation_needed"]
    assert not [name for name in vm.control.calls() if name.endswith("_Task")]


def test_a_second_backup_in_one_run_that_fails_before_packing_leaves_no_snapshot(
    fresh_vm: Make, play: Play, tmp_path: Path
) -> None:
    vm = fresh_vm(power="on")
    fails = written(tmp_path / "after.yml", [{"name": "Thaw", "ansible.builtin.fail": {"msg": "thawing failed"}}])
    plays = [played_by("phase1"), played_by("phase1", vmbackup_after_snapshot_tasks=str(fails)), played_by("summary")]
    done = play(written(tmp_path / "twice.yml", plays), "--limit", vm.name)
    assert done.rc == 2 and "thawing failed" in done.output, done.output
    assert vm.state()["snapshots"] == []


def test_a_good_result_of_an_earlier_play_is_not_shown_for_a_guest_that_is_lost_later(
    fresh_vm: Make, play: Play, tmp_path: Path
) -> None:
    lost, other = fresh_vm(power="off"), fresh_vm(power="off")
    only = "inventory_hostname == '{}'".format(lost.name)
    ping = {"name": "Ask", "ansible.builtin.ping": {}, "vars": {"ansible_port": 1}, "when": only}
    before = written(tmp_path / "before.yml", [ping])
    plays = [played_by("phase1"), played_by("phase1", vmbackup_before_snapshot_tasks=str(before)), played_by("summary")]
    done = play(written(tmp_path / "twice.yml", plays), "--limit", "{},{}".format(lost.name, other.name))
    assert done.rc != 0
    shown = done.output.split("Show each VM's result")[-1]
    assert re.search(lost.name + r"\s+MISSING", shown) and re.search(other.name + r"\s+OK", shown), done.output


def test_tasks_after_the_snapshot_run_even_when_those_before_it_fail(
    fresh_vm: Make, play: Play, tmp_path: Path
) -> None:
    vm = fresh_vm(power="on")
    fails = written(tmp_path / "before.yml", [{"name": "Freeze", "ansible.builtin.fail": {"msg": "freezing failed"}}])
    thaws = written(tmp_path / "after.yml", [{"name": "Thaw", "ansible.builtin.debug": {"msg": "it is thawed"}}])
    plays = [
        played_by("phase1", vmbackup_before_snapshot_tasks=str(fails), vmbackup_after_snapshot_tasks=str(thaws)),
        played_by("summary"),
    ]
    done = play(written(tmp_path / "once.yml", plays), "--limit", vm.name)
    assert done.rc == 2 and "it is thawed" in done.output and "freezing failed" in done.output.split("summary")[-1]
    assert vm.state()["snapshots"] == []
