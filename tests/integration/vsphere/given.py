# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of vsphere/ start from: a site, a session, a machine of the test's own, a lease."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Dict, List

from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.lease import Lease
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.lookup import VmSelector, find_vm
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.session import Connection, Session
from tests.lab.control import Control
from tests.lab.simulator import Simulator


def connection(site: Simulator) -> Connection:
    """Return how the administrator logs in."""
    return Connection(site.host, site.user, site.password, site.port, False)


def calm(site: Simulator) -> None:
    """Take back what tests do to a whole site."""
    site.control.clear_faults()
    site.control.settings(task_delay_ms=0, clock_offset_s=0, idle_timeout_s=0)


@dataclass(frozen=True)
class Machine:
    """A fresh VM of the test's own."""

    site: Simulator
    session: Session
    name: str
    vm_obj: Any

    @property
    def control(self) -> Control:
        return self.site.control

    def state(self) -> Dict[str, Any]:
        return self.control.state(self.name)

    def names(self) -> List[str]:
        return sorted(each["name"] for each in self.state()["snapshots"])

    def heads(self) -> List[str]:
        return [each["chain"][-1] for each in self.state()["disks"]]

    def fault(self, kind: str, **what: Any) -> None:
        self.control.fault(kind, vm=self.name, **what)

    def seen_by(self, session: Session) -> Any:
        """Return the VM as another session sees it."""
        return find_vm(session, VmSelector(self.name))


def lease(suffix: str = "7f3a", **changes: Any) -> Lease:
    """Return a lease as vm_snapshot makes it."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    return replace(Lease("20261122T010000Z-full-" + suffix, "job 17", "control01", None, now), **changes)


def as_user(site: Simulator, name: str, *denied: str) -> Connection:
    """Make a user who may not call some methods; return how to log in as them."""
    site.control.user(name, "secret-of-" + name, denied)
    return replace(connection(site), username=name, password="secret-of-" + name)
