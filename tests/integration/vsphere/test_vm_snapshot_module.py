# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module vm_snapshot as playbooks run it: by ansible-playbook, with owners that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Dict

import pytest

from .given import lease

ID, OTHER = "20261122T010000Z-full-7f3a", "20261122T020000Z-full-0001"


class Controller:
    """A folder with locks, and playbooks that call the module on one VM."""

    def __init__(self, machine: Any, folder: Path) -> None:
        self.machine = machine
        self.folder = folder
        site = machine.site
        self.options = {
            "hostname": site.host,
            "port": site.port,
            "username": site.user,
            "password": site.password,
            "validate_certs": False,
            "vm": "web01",
            "vm_name": machine.name,
            "controller_id": "control01",
            "run": "job 17",
            "lock_dir": str(folder / "locks"),
            "mover_is_local": True,
            "backup_id": ID,
            "wait_for_turn": 1,
        }

    def start(self, *flags: str, then: Any = (), **options: Any) -> subprocess.Popen[bytes]:
        """Start a playbook that calls the module, writes its result to a file and goes on with the tasks `then`."""
        playbook, result = self.folder / "play.yml", self.folder / "result.json"
        result.unlink(missing_ok=True)
        keep = {"content": "{{ result | to_json }}", "dest": str(result), "mode": "0600"}
        tasks = [
            {"vmbackup.esx.vm_snapshot": {**self.options, **options}, "register": "result", "ignore_errors": True},
            {"ansible.builtin.copy": keep, "check_mode": False},
            *then,
        ]
        playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
        variables = "ansible_python_interpreter=" + sys.executable
        program = Path(sys.executable).parent / "ansible-playbook"
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [str(program), "-vvv", "-i", "localhost,", "-c", "local", "-e", variables, *flags, str(playbook)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
                start_new_session=True,
            )

    def result(self) -> Dict[str, Any]:
        """Wait for the result."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                return json.loads((self.folder / "result.json").read_text())
            except (FileNotFoundError, json.JSONDecodeError):
                time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def call(self, *flags: str, **options: Any) -> Dict[str, Any]:
        """Run the module once and return its result."""
        process = self.start(*flags, **options)
        process.wait(120)
        return self.result()


@pytest.fixture
def any_controller(machine: Any, tmp_path: Path) -> Controller:
    return Controller(machine, tmp_path)


@pytest.fixture
def controller(request: Any, site: Any) -> Controller:
    if site.model == "vpx":
        pytest.skip("the module does nothing of its own on a vCenter; what it calls is tested there")
    return request.getfixturevalue("any_controller")


def test_present_is_idempotent_and_absent_puts_the_disks_back(any_controller):
    controller = any_controller
    before = controller.machine.heads()
    first = controller.call()
    assert first["changed"], first
    assert first["snapshot"]["name"] == "vmbackup-" + ID
    assert first["snapshot"]["quiesced"]
    assert first["consistency"] == "application"
    assert first["power_state"] == "powered_on"
    assert first["vm"]["name"] == controller.machine.name
    assert first["vm"]["instance_uuid"] == controller.machine.state()["instance_uuid"]
    again = controller.call()
    assert not again["changed"], again
    assert again["snapshot"] == first["snapshot"]
    assert controller.machine.names() == [first["snapshot"]["name"]]
    gone = controller.call(state="absent")
    assert gone["changed"]
    assert gone["removal"]["tries"] == 1
    assert controller.machine.heads() == before
    assert controller.machine.site.password not in (controller.folder / "log").read_text()


def test_check_mode_shows_the_plan_and_touches_nothing(controller):
    planned = controller.call("--check")
    assert planned["changed"]
    assert planned["planned"]
    assert planned["snapshot"]["name"] == "vmbackup-" + ID
    assert planned["reason"]
    assert controller.machine.names() == []
    assert not (controller.folder / "locks").exists()


def test_a_powered_off_vm_gets_no_snapshot(controller):
    controller.machine.control.set_vm(controller.machine.name, power="off")
    result = controller.call()
    assert not result["changed"], result
    assert result["snapshot"] is None
    assert result["consistency"] == "powered_off"
    assert controller.machine.names() == []


def test_a_vm_that_a_backup_would_not_cover_is_refused(controller):
    controller.machine.control.set_vm(controller.machine.name, disk_modes={"1": "independent_persistent"})
    result = controller.call()
    assert result["failed"]
    assert result["code"] == "coverage_refused"
    assert controller.machine.names() == []
    allowed = controller.call(allow=["independent"])
    assert allowed["snapshot"], allowed
    assert allowed["judgement"]["left_out"]


def test_a_second_run_gives_way_while_the_first_lives_and_reaps_when_it_is_dead(controller):
    """The playbook is killed with SIGKILL between its tasks: nothing of its own can repair anything."""
    first = controller.start(then=[{"ansible.builtin.wait_for": {"timeout": 60}}])
    name = controller.result()["snapshot"]["name"]
    busy = controller.call(backup_id=OTHER)
    assert busy["code"] == "vm_busy"
    assert ID in busy["msg"]
    assert "job 17" in busy["msg"]
    held = controller.call(state="reaped", backup_id="")
    assert held["held"] == [ID]
    assert not held["changed"]
    assert controller.machine.names() == [name]
    os.kill(first.pid, signal.SIGKILL)
    first.wait(10)
    planned = controller.call("--check", state="reaped", backup_id="")
    assert planned["reaped"] == [ID]
    assert controller.machine.names() == [name]
    second = controller.call(backup_id=OTHER)
    assert second["reaped"] == [ID], second
    assert controller.machine.names() == ["vmbackup-" + OTHER]


def test_what_a_dead_run_left_goes_though_the_vm_is_refused(controller):
    long_ago = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=1)
    left = lease("dead", controller_id="control02", renewed=long_ago)
    controller.machine.control.snapshot(controller.machine.name, left.name, left.description)
    controller.machine.control.set_vm(controller.machine.name, disk_modes={"1": "independent_persistent"})
    refused = controller.call()
    assert refused["code"] == "coverage_refused", refused
    assert controller.machine.names() == []


def test_a_dead_run_of_another_controller_is_waited_for(controller):
    before = controller.machine.heads()
    controller.call(controller_id="control02")
    busy = controller.call(backup_id=OTHER)
    assert busy["code"] == "vm_busy"
    assert "control02" in busy["msg"]
    controller.machine.control.settings(clock_offset_s=31 * 60)
    assert controller.call(state="reaped", backup_id="")["reaped"] == [ID]
    assert controller.machine.heads() == before


def test_no_turn_leaves_no_snapshot(controller, make_machine):
    other = Controller(make_machine(), controller.folder)
    other.call()
    result = controller.call(backup_id=OTHER, max_per_esx_host=1)
    assert result["code"] == "no_turn"
    assert controller.machine.names() == []


def test_an_error_names_object_cause_and_option(controller):
    result = controller.call(vm_name="no-such-vm")
    assert result["code"] == "vm_not_found"
    assert "no-such-vm" in result["msg"]
    assert "vm_uuid" in result["hint"]
