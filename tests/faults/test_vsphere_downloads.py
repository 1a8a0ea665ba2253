# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading frozen disks from a host that breaks off, stalls, lies or refuses, and from disks that do not stay frozen."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from .ground import Ground, Machine

_MIB = 1 << 20
_DISK = [{"size_mb": 16, "fill_mb": 16}]
_QUICK = {"vmbackup_quiesce": "never"}


def test_downloads_that_go_wrong(ground: Ground) -> None:
    """What can be taken up again is, to equal bytes; what is short or contradicts itself is never committed."""
    names = ("breaks", "stalls", "short", "lies", "whole", "refused", "vmx-refused", "sesparse")
    machines = {guest: ground.vm(guest, disks=_DISK, variables=_QUICK) for guest in names[:-1]}
    machines["sesparse"] = ground.vm("sesparse", sesparse=True, snapshots=(("mine", ""),))
    download(machines["breaks"], "drop", after_bytes=3 * _MIB, skip=1, count=2)  # the first is the probe
    download(machines["stalls"], "stall", after_bytes=5 * _MIB, skip=1, count=1)
    download(machines["short"], "short", after_bytes=_MIB)
    download(machines["lies"], "lie", after_bytes=2 * _MIB)
    download(machines["whole"], "ignore_range")
    download(machines["refused"], "http", status=500)
    machines["vmx-refused"].control.fault("http", method="GET", path="vmx-refused.vmx", status=403)
    outcome = ground.run()

    for guest in ("breaks", "stalls"):
        ground.require_backup(machines[guest], outcome.good(guest))
    extent = {guest: machine.extent() for guest, machine in machines.items()}
    outcome.failed("short", "download_short", extent["short"], "not read in full", "broke 6 times", "network")
    outcome.failed("lies", "download_length", extent["lies"], "were asked for", "proxy")
    outcome.failed("refused", "download_refused", extent["refused"], "500", "low-level file access")
    outcome.failed("vmx-refused", "download_refused", "vmx-refused.vmx", "403", "low-level file access")
    outcome.failed("sesparse", "transport_unsupported", "'Hard disk 1'", "seSparse", "transport", "exclude_disks")
    ground.require_nothing(*(machines[guest] for guest in ("short", "lies", "refused", "vmx-refused", "sesparse")))
    ground.require_calm(*machines.values())
    if outcome.results["whole"]["status"] == "ok":
        ground.require_backup(machines["whole"], outcome.good("whole"))
    else:
        outcome.failed("whole", "download_length", extent["whole"], "Range")


def test_disks_that_do_not_stay_frozen(ground: Ground) -> None:
    """Powered on while it is packed: made again with a snapshot. Our snapshot removed by somebody: nothing is committed."""
    patient = {**_QUICK, "vmbackup_task_timeout": 60}
    off = {guest: ground.vm(guest, disks=_DISK, power="off", variables=patient) for guest in ("on-locked", "on-open")}
    gone = {guest: ground.vm(guest, disks=_DISK, variables=patient) for guest in ("gone-locked", "gone-open")}
    machines = {**off, **gone}
    faults = {}
    for guest, machine in machines.items():
        if guest.endswith("locked"):  # the download is taken up again, and ESX has locked the file meanwhile
            faults[guest] = download(machine, "stall", after_bytes=5 * _MIB, skip=1, count=1)
        else:  # it goes on, over bytes that may change
            faults[guest] = download(machine, "rate", rate_kbs=2048, skip=1, count=1)

    def meddle(guest: str) -> None:
        machine = machines[guest]
        until(partial(used, machine, faults[guest]))
        if guest in off:
            machine.control.set_vm(machine.moid, power="on")
        else:
            machine.control.remove_snapshot(machine.moid, machine.ours()[0])
        if guest.endswith("locked"):
            machine.control.clear_faults(faults[guest])

    def meddle_with_all() -> None:
        with ThreadPoolExecutor(len(machines)) as pool:
            list(pool.map(meddle, machines))

    outcome = ground.run(meanwhile=meddle_with_all)
    for guest, machine in off.items():
        described = ground.require_backup(machine, outcome.good(guest))
        assert described["consistency"] == "crash"
        assert described["snapshot"]["name"] == "vmbackup-" + described["id"]
    for guest in gone:
        outcome.failed(guest, "snapshot_vanished", "vmbackup-", "removed by somebody else", "vmbackup-*")
    ground.require_nothing(*gone.values())
    ground.require_calm(*off.values())


@pytest.mark.parametrize("esx", ["esx1", "vc1"])
def test_sessions_that_end_mid_way(ground: Ground, esx: str) -> None:
    """Ended by an administrator during the download, and by idleness whenever a step takes longer than that."""
    ended = ground.vm("ended", esx, disks=_DISK, snapshots=(("mine", ""),))
    idle = ground.vm("idle", esx, disks=_DISK)
    stalled = download(ended, "stall", after_bytes=2 * _MIB, count=1, skip=1)
    download(idle, "rate", rate_kbs=8192)
    idle.control.settings(idle_timeout_s=1, task_delay_ms=300)

    def expire() -> None:
        until(lambda: used(ended, stalled) > 0)
        assert ended.control.expire_sessions() > 0
        ended.control.clear_faults(stalled)

    outcome = ground.run(meanwhile=expire)
    assert outcome.rc == 0, outcome.output
    for machine in (ended, idle):
        ground.require_backup(machine, outcome.good(machine.guest))
    ground.require_calm(ended, idle)


def download(machine: Machine, kind: str, **what: int) -> int:
    """Put a fault on every download of a machine's base extent; return its id."""
    return machine.control.fault(kind, method="GET", path=machine.extent(), **what)


def used(machine: Machine, fault: int) -> int:
    """Return how many downloads a fault has met."""
    return next(int(each["used"]) for each in machine.control.faults() if each["id"] == fault)


def until(done: Callable[[], object], limit: float = 180.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + limit
    while not done():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.05)
