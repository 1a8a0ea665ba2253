# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks, faults, users, sessions and waiting, as several clients meet them at once."""

from __future__ import annotations

import threading
import time

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

from tests.lab.client import Client, tree
from tests.lab.simulator import Simulator


def test_many_clients_wait_for_their_tasks_at_once(sim: Simulator, name: str) -> None:
    sim.control.settings(task_delay_ms=200)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with Client(sim) as client:
                machine = client.vm(f"{name}-{number}")
                for _turn in range(3):
                    snapshot = client.snapshot(machine, "s")
                    WaitForTask(snapshot.RemoveSnapshot_Task(removeChildren=False))
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    for number in range(6):
        sim.control.create_vm(f"{name}-{number}")
    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert errors == []
    assert not any(thread.is_alive() for thread in threads)


def test_a_slow_task_shows_progress(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name)
    sim.control.settings(task_delay_ms=700)
    task = client.vm(name).CreateSnapshot_Task(name="s", memory=False, quiesce=False)
    seen = set()
    while task.info.state in ("queued", "running"):
        seen.add(task.info.progress)
        time.sleep(0.05)
    assert task.info.state == "success"
    assert len(seen) > 4


def test_waiting_sees_changes_of_a_machine(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name)
    machine = client.vm(name)
    collector = client.content.propertyCollector.CreatePropertyCollector()

    query = vmodl.query.PropertyCollector
    spec = query.FilterSpec(
        objectSet=[query.ObjectSpec(obj=machine)],
        propSet=[query.PropertySpec(type=vim.VirtualMachine, pathSet=["runtime.powerState", "snapshot"])],
    )
    collector.CreateFilter(spec, True)
    first = collector.WaitForUpdatesEx("", query.WaitOptions(maxWaitSeconds=5))
    values = {c.name: c.val for c in first.filterSet[0].objectSet[0].changeSet}
    assert values["runtime.powerState"] == "poweredOn"
    assert collector.WaitForUpdatesEx(first.version, query.WaitOptions(maxWaitSeconds=0)) is None
    client.snapshot(machine, "s")
    second = collector.WaitForUpdatesEx(first.version, query.WaitOptions(maxWaitSeconds=5))
    assert [c.name for c in second.filterSet[0].objectSet[0].changeSet] == ["snapshot"]


def test_an_injected_fault_fails_the_task_so_often(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name)
    machine = client.vm(name)
    sim.control.fault("task", method="CreateSnapshot*", vm=name, fault="ApplicationQuiesceFault", count=1)
    with pytest.raises(vim.fault.ApplicationQuiesceFault):
        client.snapshot(machine, "s", quiesce=True)
    snapshot = client.snapshot(machine, "s", quiesce=True)
    sim.control.fault("task", method="RemoveSnapshot_Task", vm=name, fault="FileLocked", count=2)
    for _turn in range(2):
        with pytest.raises(vim.fault.FileLocked):
            WaitForTask(snapshot.RemoveSnapshot_Task(removeChildren=False))
    WaitForTask(snapshot.RemoveSnapshot_Task(removeChildren=False))
    assert [f["used"] for f in sim.control.faults()] == [1, 2]


def test_a_lost_answer_leaves_the_work_done(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name)
    machine = client.vm(name)
    sim.control.fault("lost", method="CreateSnapshot_Task", vm=name, count=1)
    with pytest.raises(OSError):
        client.snapshot(machine, "s")
    end = time.monotonic() + 5
    while not (machine.snapshot and machine.snapshot.rootSnapshotList) and time.monotonic() < end:
        time.sleep(0.05)
    assert [n.name for n in tree(machine.snapshot.rootSnapshotList)] == ["s"]


def test_a_hanging_task_goes_on_when_the_fault_is_taken_back(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name)
    machine = client.vm(name)
    fault = sim.control.fault("hang", method="CreateSnapshot_Task", vm=name)
    task = machine.CreateSnapshot_Task(name="s", memory=False, quiesce=False)
    time.sleep(0.3)
    assert task.info.state == "running"
    assert machine.snapshot is None
    sim.control.clear_faults(fault)
    WaitForTask(task)
    assert machine.snapshot is not None


def test_soap_faults_and_denied_methods(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name)
    sim.control.fault("soap", method="QueryChangedDiskAreas", fault="FileFault", message="boom", count=1)
    with pytest.raises(vim.fault.FileFault, match="boom"):
        client.vm(name).QueryChangedDiskAreas(deviceKey=2000, startOffset=0, changeId="*")
    sim.control.user("reader", "pw", deny=["CreateSnapshot*", "PowerO*"])
    with Client(sim, "reader", "pw") as reader:
        with pytest.raises(vim.fault.NoPermission):
            reader.snapshot(reader.vm(name), "s")
        assert reader.vm(name).runtime.powerState == "poweredOn"
    with pytest.raises(vim.fault.InvalidLogin):
        Client(sim, "reader", "wrong")


def test_sessions_end_by_force_and_by_idleness(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name)
    machine = client.vm(name)
    assert sim.control.expire_sessions() >= 1
    with pytest.raises(vim.fault.NotAuthenticated):
        machine.name  # noqa: B018
    assert client.content.sessionManager.currentSession is None
    client.content.sessionManager.Login(sim.user, sim.password)
    assert machine.name == name
    sim.control.settings(idle_timeout_s=0.3)
    time.sleep(0.5)
    with pytest.raises(vim.fault.NotAuthenticated):
        machine.name  # noqa: B018
    client.content.sessionManager.Login(sim.user, sim.password)


def test_performance_values_are_those_that_were_fed(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name)
    machine = client.vm(name)
    sim.control.perf({name: {"cpu.usage.average": [100, 200, 300]}, "HostSystem": {"disk.usage.average": [250000]}})
    manager = client.content.perfManager
    counters = {f"{c.groupInfo.key}.{c.nameInfo.key}.{c.rollupType}": c.key for c in manager.perfCounter}

    def values(entity: object, counter: str) -> list[int]:
        metric = vim.PerformanceManager.MetricId(counterId=counters[counter], instance="")
        query = vim.PerformanceManager.QuerySpec(entity=entity, metricId=[metric], intervalId=20, maxSample=3)
        (result,) = manager.QueryPerf([query])
        assert [s.timestamp for s in result.sampleInfo] == sorted(s.timestamp for s in result.sampleInfo)
        return list(result.value[0].value)

    assert values(machine, "cpu.usage.average") == [100, 200, 300]
    assert values(machine.runtime.host, "disk.usage.average") == [250000] * 3


def test_calls_are_counted(sim: Simulator, client: Client, name: str) -> None:
    sim.control.create_vm(name)
    sim.control.calls(reset=True)
    client.snapshot(client.vm(name), "s")
    assert sim.control.calls()["CreateSnapshot_Task"] == 1
