# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which VM is meant: names that are missing, doubled, or hard to write."""

from __future__ import annotations

import uuid

from .ground import Ground

_NAMES = ("web 01 (old)", 'it\'s "quoted"', "größe-データ", "100%-$HOME;`id`", "-dash")


def test_names_that_are_hard_to_write_are_backed_up_under_themselves(ground: Ground) -> None:
    machines = {name: ground.vm(name, power="on") for name in _NAMES}
    # vSphere stores a slash as %2f; people write either
    machines["db/primary"] = ground.vm("db/primary", name="db%2fprimary")
    machines["backslash"] = ground.vm("backslash", name="a%5cb", variables={"vmbackup_vm_name": "a\\b"})
    machines["escaped"] = ground.vm("escaped", name="c%2fd", variables={"vmbackup_vm_name": "c%2fd"}, power="off")
    outcome = ground.run()
    assert outcome.rc == 0, outcome.output
    for name, machine in machines.items():
        described = ground.require_backup(machine, outcome.good(name))
        assert described["vm"]["name"] == name
        assert "{} of {} good".format(len(machines), len(machines)) in outcome.output
    ground.require_calm(*machines.values())


def test_a_vm_is_never_guessed(ground: Ground) -> None:
    """Two VMs of one name in two folders of a vCenter, and names that nobody has."""
    found = {"vmbackup_vm_name": "twin"}
    by_folder, by_uuid = {**found, "vmbackup_vm_folder": "prod/web"}, {"vmbackup_vm_uuid": str(uuid.uuid4())}
    prod = ground.vm("by-folder", "vc1", "twin", folder="prod/web", variables=by_folder)
    other = ground.vm(
        "by-uuid", "vc1", "twin", folder="tést", instance_uuid=by_uuid["vmbackup_vm_uuid"], variables=by_uuid
    )
    guests = {
        "ambiguous": found,
        "nobody": {"vmbackup_vm_name": "twim"},
        "no-folder": {**found, "vmbackup_vm_folder": "stage"},
        "no-uuid": {"vmbackup_vm_uuid": "00000000-0000-0000-0000-000000000000"},
        "no-moid": {"vmbackup_vm_moid": "vm-424242"},
    }
    for guest, variables in guests.items():
        ground.guest(guest, "vc1", **variables)
    outcome = ground.run()
    uuids = [machine.state()["instance_uuid"] for machine in (prod, other)]
    outcome.failed("ambiguous", "vm_ambiguous", "2 VMs", "/DC0/vm/prod/web/twin", "/DC0/vm/tést/twin", *uuids)
    outcome.failed("ambiguous", "vm_ambiguous", "vm_uuid", "vm_folder")
    outcome.failed("nobody", "vm_not_found", "'twim'", "names like it: twin", "vm_name")
    outcome.failed("no-folder", "vm_not_found", "'twin' in folder stage", "vm_folder")
    outcome.failed("no-uuid", "vm_not_found", "00000000-0000-0000-0000-000000000000", "vm_uuid")
    outcome.failed("no-moid", "vm_not_found", "vm-424242", "vm_moid")
    assert "2 of 7 good" in outcome.output
    for machine in (prod, other):
        described = ground.require_backup(machine, outcome.good(machine.guest))
        assert described["vm"]["instance_uuid"] == machine.state()["instance_uuid"]
    ground.require_calm(prod, other)
