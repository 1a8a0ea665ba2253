# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the lab's own tests: one simulator per model for the whole run, a fresh machine per test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.client import Client
from tests.lab.simulator import Simulator

numbers = itertools.count(1)


@pytest.fixture(scope="session", params=["esx", "vpx"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    state: Path = tmp_path_factory.mktemp(request.param)
    with Simulator(state, request.param, {"datastore1": 8192, "ds two": 4096}) as simulator:
        yield simulator


@pytest.fixture
def sim(running: Simulator) -> Iterator[Simulator]:
    """The simulator without faults, whatever the test before left."""
    yield running
    running.control.clear_faults()
    running.control.settings(
        task_delay_ms=0, stun_ms=0, clock_offset_s=0, max_areas=1000, lease_timeout_s=300, idle_timeout_s=0
    )
    for machine in running.control.vms():
        running.control.destroy_vm(machine["moid"])


@pytest.fixture
def client(sim: Simulator) -> Iterator[Client]:
    with Client(sim) as session:
        yield session


@pytest.fixture
def name() -> str:
    return f"vm{next(numbers):03d}"
