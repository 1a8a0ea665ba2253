# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup would miss is refused before the VM is touched, until it is allowed by name."""

from __future__ import annotations

from .ground import Ground

_TWO = [{"size_mb": 4, "fill_mb": 2}, {"size_mb": 4, "fill_mb": 2, "mode": "independent_persistent"}]


def test_what_would_be_missed_is_refused_until_it_is_allowed(ground: Ground) -> None:
    refused = {
        "template": ground.vm("template", template=True, power="off"),
        "suspended": ground.vm("suspended", power="suspended"),
        "independent": ground.vm("independent", disks=_TWO),
        "passthrough": ground.vm("passthrough", passthrough=True, power="off"),
        "rdm": ground.vm("rdm", disks=[{"size_mb": 4}, {"size_mb": 4, "rdm": "physical"}]),
        "vtpm": ground.vm("vtpm", vtpm=True),
        "misspelt": ground.vm("misspelt", variables={"vmbackup_exclude_disks": ["Hard disk 7"]}),
    }
    accepted = ground.vm("slept", power="suspended", variables={"vmbackup_allow": ["suspended"]})
    allowed = ground.vm("allowed", disks=_TWO, variables={"vmbackup_allow": ["independent"]})
    excluded = ground.vm("excluded", disks=_TWO, variables={"vmbackup_exclude_disks": ["Hard disk 2"]})
    accepted.control.calls(reset=True)
    outcome = ground.run()

    outcome.failed("template", "coverage_blocked", "VM template", "it is a template", "convert it to a VM")
    outcome.failed("suspended", "coverage_refused", "VM suspended", "it is suspended", "allow: ['suspended']")
    outcome.failed(
        "independent", "coverage_refused", "VM independent", "'Hard disk 2'", "is independent", "allow: ['independent']"
    )
    outcome.failed("passthrough", "coverage_blocked", "VM passthrough", "PCI passthrough", "inside the guest")
    outcome.failed(
        "rdm", "coverage_blocked", "VM rdm", "'Hard disk 2'", "physical RDM", "exclude_disks: ['Hard disk 2']"
    )
    outcome.failed("vtpm", "coverage_refused", "VM vtpm", "vTPM", "key provider", "allow: ['vtpm']")
    outcome.failed("misspelt", "coverage_blocked", "'Hard disk 7'", "has 'Hard disk 1'", "correct exclude_disks")
    ground.require_nothing(*refused.values())

    described = ground.require_backup(accepted, outcome.good("slept"))
    assert described["consistency"] == "crash"
    assert "suspendMemory" in [each["kind"] for each in described["left_out"]] or any(
        "memory" in each["reason"] for each in described["left_out"]
    )
    for machine in (allowed, excluded):
        described = ground.require_backup(machine, outcome.good(machine.guest))
        assert "Hard disk 2" in [each["what"] for each in described["left_out"]]
    ground.require_calm(accepted, allowed, excluded)
    assert accepted.state()["power"] == "suspended"
    assert accepted.control.calls()["CreateSnapshot_Task"] == 3  # of none that was refused


def test_a_datastore_that_is_nearly_full(ground: Ground) -> None:
    """Too little for what the snapshot may need is refused before it is taken; none at all fails the snapshot itself."""
    disks = [{"size_mb": 40, "fill_mb": 1, "datastore": "datastore2"}]
    refused = ground.vm("refused", disks=disks)
    allowed = ground.vm("allowed", disks=disks, variables={"vmbackup_allow": ["low_space"]})
    full = ground.vm("full", variables={"vmbackup_quiesce": "never"})
    full.control.fault("task", vm=full.moid, method="CreateSnapshot_Task", fault="NoDiskSpace")
    capacity = full.control.datastore("datastore2", free_mb=30)["capacity"]
    try:
        outcome = ground.run()
    finally:
        full.control.datastore("datastore2", capacity_mb=capacity >> 20)
    outcome.failed("refused", "coverage_refused", "VM refused", "datastore 'datastore2'", "MiB free", "may need 40 MiB")
    outcome.failed("refused", "coverage_refused", "allow: ['low_space']")
    outcome.failed("full", "datastore_full", "'full'", "no space is left on datastore", "free space")
    ground.require_backup(allowed, outcome.good("allowed"))
    ground.require_nothing(refused, full)
    ground.require_calm(allowed)
