# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs with a fault each, one run over all of them, and what must hold for each afterwards, whatever went wrong.

Invariant: guests write only while a snapshot of ours stands, so a backup must equal the disks as they were before the run, and
the live disks afterwards must equal those with every write applied.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.integration.opened_backup import committed, disk_digests, incoming, manifest, unpack
from tests.lab.control import Control
from tests.lab.fixtures import Played
from tests.lab.site import LabSite

from .guests import Guests, is_ours

_RESULT = re.compile(r"^ok: \[(.*)\] => (?=\{)", re.MULTILINE)
# Without the limits every VM has its turn at once, and small clocks make what hangs fail soon.
_VARIABLES = {"vmbackup_max_per_esx_host": 0, "vmbackup_max_per_datastore": 0, "vmbackup_task_timeout": 3}


@dataclass
class Machine:
    """A VM of a test. guest: its inventory name. before: its disks' content and its users' snapshots before the run."""

    guest: str
    moid: str
    control: Control
    before: list[bytes] = field(default_factory=list)
    users: list[tuple[str, str]] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        return self.control.state(self.moid)

    def ours(self) -> list[str]:
        """Return the names of our snapshots on it."""
        return [each["name"] for each in self.state()["snapshots"] if is_ours(each)]

    def others(self) -> list[tuple[str, str]]:
        """Return name and description of every snapshot that is not ours."""
        return sorted((each["name"], each["description"]) for each in self.state()["snapshots"] if not is_ours(each))

    def extent(self, disk: int = 0) -> str:
        """Return the base extent's path, as a fault of a transfer takes it."""
        return str(self.state()["disks"][disk]["chain"][0]).replace(".vmdk", "-flat.vmdk")

    def content(self) -> list[bytes]:
        """Return what the live disks hold."""
        disks = self.state()["disks"]
        return [
            self.control.read(self.moid, number, 0, disk["size"]) if disk["chain"] else b""
            for number, disk in enumerate(disks)
        ]

    def remember(self) -> None:
        self.before, self.users = self.content(), self.others()


@dataclass(frozen=True)
class Outcome:
    """What one run came to. results: by inventory name, what the role recorded; hosts that recorded nothing are absent."""

    rc: int
    output: str
    results: dict[str, dict[str, Any]]

    def failed(self, guest: str, code: str, *words: str) -> None:
        """Assert that a VM failed with a code, and that its message and the summary say the words."""
        result = self.results[guest]
        assert (result["status"], result["code"]) == ("failed", code), result
        assert not [word for word in words if word not in result["message"]], result["message"]
        assert self.rc == 2, self.output

    def good(self, guest: str, *words: str) -> str:
        """Assert that a VM was backed up and its message says the words; return the backup's id."""
        result = self.results[guest]
        assert result["status"] == "ok", (result, self.output[-4000:])
        assert not [word for word in words if word not in result["message"]], result["message"]
        return str(result["backup_id"])


class Ground:
    """The machines of one test."""

    def __init__(self, lab: LabSite, play: Callable[..., Played], folder: Path) -> None:
        self._lab, self._play, self._folder = lab, play, folder
        self.machines: list[Machine] = []
        self._guests: set[str] = set()
        self.secrets = {server.password for server in lab.esx.values()}

    def vm(
        self,
        guest: str,
        esx: str = "esx1",
        name: str | None = None,
        snapshots: tuple[tuple[str, str], ...] = (),
        variables: dict[str, Any] | None = None,
        **spec: Any,
    ) -> Machine:
        """Make a VM and its guest. name: in vSphere, where it differs. snapshots: names and descriptions of its users'."""
        control = self._lab.esx[esx].control
        spec.setdefault("disks", [{"size_mb": 4, "fill_mb": 2}])
        moid = control.create_vm(name or guest, **spec)["moid"]
        self.machines.append(Machine(guest, moid, control))
        self.guest(guest, esx, **(variables or {}))
        for title, description in snapshots:
            control.snapshot(moid, title, description)
        return self.machines[-1]

    def guest(self, guest: str, esx: str = "esx1", **variables: Any) -> None:
        """Put a host into the inventory, or change its variables."""
        self._guests.add(guest)
        self._lab.add_guest(guest, esx, **{**_VARIABLES, **variables})

    def user(self, esx: str, name: str, *denied: str) -> dict[str, str]:
        """Make a user who may not call some methods; return the variables that log in as them."""
        secret = f"Secret-of-{name}!"
        self.secrets.add(secret)
        self._lab.esx[esx].control.user(name, secret, denied)
        return {"vmbackup_esx_username": name, "vmbackup_esx_password": secret}

    def run_on(self, machine: Machine, playbook: str = "full_backup.yml") -> Outcome:
        """Run a playbook over one machine."""
        return self.run(playbook, only=machine)

    def run(
        self,
        playbook: str = "full_backup.yml",
        *,
        only: Machine | None = None,
        env: dict[str, str] | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Outcome:
        """Run a playbook over all machines, or one, while their guests write, and hold what must hold in any case.

        meanwhile: called beside the playbook.
        """
        for machine in self.machines:
            machine.remember()
        with Guests(self.machines, meanwhile) as guests:
            played = self._play(
                playbook, "-vvv", *(["--limit", only.guest] if only else []), env={"ANSIBLE_FORKS": "12", **(env or {})}
            )
        guests.require_no_failure()
        for machine in self.machines:
            assert machine.content() == guests.expected(machine), f"{machine.guest}: a write was lost"
            assert machine.others() == machine.users, machine.guest
            for root in (self._lab.store_root, self._lab.folder / "staging"):
                assert incoming(root, machine.guest) == [], machine.guest
        for secret in self.secrets:
            assert secret not in played.output
            assert secret not in "".join(guests.descriptions)
            assert not [path for path in self._lab.store_root.rglob("*.json") if secret in path.read_text()]
        return Outcome(played.rc, played.output, _results(played.stdout))

    def backups(self, machine: Machine) -> list[Path]:
        """Return a VM's committed backups in the store."""
        return committed(self._lab.store_root, machine.guest)

    def require_backup(self, machine: Machine, backup_id: str, disks: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """Assert that the store holds this one backup, that plain tools open it, and its bytes; return its manifest."""
        assert [path.name for path in self.backups(machine)] == [backup_id]
        assert committed(self._lab.folder / "staging", machine.guest) == []
        (backup,) = self.backups(machine)
        assert backup.parent.name == quote(machine.guest, safe="")
        folder = unpack(backup, self._folder / backup_id)
        wanted = sorted(hashlib.sha256(machine.before[disk]).hexdigest() for disk in disks)
        assert disk_digests(folder) == wanted, machine.guest
        return manifest(backup)

    def require_nothing(self, *machines: Machine) -> None:
        """Assert that VMs carry no snapshot of ours, no delta of one, and have no backup anywhere."""
        for machine in machines:
            self.require_calm(machine)
            assert self.backups(machine) == [], machine.guest
            assert committed(self._lab.folder / "staging", machine.guest) == [], machine.guest

    def require_calm(self, *machines: Machine) -> None:
        """Assert that VMs carry no snapshot of ours and that no disk needs consolidation."""
        for machine in machines:
            assert machine.ours() == [], machine.guest
            state = machine.state()
            assert not state["consolidation_needed"], machine.guest
            if not machine.users:
                assert not [disk for disk in state["disks"] if len(disk["chain"]) > 1], machine.guest

    def clear(self) -> None:
        """Take everything back."""
        for server in self._lab.esx.values():
            server.control.clear_faults()
            server.control.settings(task_delay_ms=0, idle_timeout_s=0, clock_offset_s=0)
        for guest in self._guests:
            self._lab.remove_guest(guest)
            for root in (self._lab.store_root, self._lab.folder / "staging"):  # another test's VM may have its name
                shutil.rmtree(root / quote(guest, safe=""), ignore_errors=True)
        for machine in self.machines:
            machine.control.destroy_vm(machine.moid)


def _results(stdout: str) -> dict[str, dict[str, Any]]:
    """Return what the role recorded for each host, from the verbose output."""
    found = {}
    for match in _RESULT.finditer(stdout):
        facts, _end = json.JSONDecoder().raw_decode(stdout, match.end())
        if "vmbackup_result" in facts.get("ansible_facts", {}):
            found[match.group(1)] = facts["ansible_facts"]["vmbackup_result"]
    return found
