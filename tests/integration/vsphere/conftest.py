# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulated ESX host and a simulated vCenter, each with VMs of its own for every test.

pytest loads this before the collection can be imported, so fixtures import it themselves.
"""

from __future__ import annotations

import itertools
from typing import Any, Iterator

import pytest

from tests.lab.simulator import Simulator

_numbers = itertools.count(1)
_STORES = {"datastore1": 512, "datastore2": 512}


@pytest.fixture(scope="session", params=["esx", "vpx"])
def site(request: Any, tmp_path_factory: Any) -> Iterator[Simulator]:
    with Simulator(tmp_path_factory.mktemp("sim-" + request.param), request.param, _STORES) as running:
        yield running


@pytest.fixture
def session(site: Simulator) -> Iterator[Any]:
    from tests.integration.vsphere.given import Session, calm, connection

    calm(site)
    with Session.open(connection(site)) as opened:
        yield opened
    calm(site)


@pytest.fixture
def make_machine(site: Simulator, session: Any) -> Any:
    from tests.integration.vsphere.given import Machine, VmSelector, calm, find_vm

    made = []

    def make(**spec: Any) -> Any:
        name = spec.pop("name", "vm{:03d}".format(next(_numbers)))
        disks = spec.pop("disks", [{"size_mb": 1, "fill_mb": 1}, {"size_mb": 1}])
        moid = site.control.create_vm(name, disks, **spec)["moid"]
        made.append(moid)
        return Machine(site, session, name, find_vm(session, VmSelector(name, moid=moid)))

    yield make
    calm(site)
    for moid in made:  # what a test leaves would count as a VM under backup in another
        for snapshot in site.control.state(moid)["snapshots"]:
            site.control.remove_snapshot(moid, snapshot["moid"])


@pytest.fixture
def machine(make_machine: Any) -> Any:
    return make_machine()
