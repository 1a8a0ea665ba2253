# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.coverage import (
    ALLOWABLE,
    GIB,
    CoveragePolicy,
    expected_delta,
    judge,
)
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.facts import (
    DatastoreFacts,
    DiskFacts,
    SnapshotFacts,
    VmFacts,
    split_path,
)

DISK = DiskFacts(
    "Hard disk 1",
    2000,
    "scsi0:0",
    "scsi",
    "ParaVirtualSCSIController",
    "noSharing",
    10 * GIB,
    "[ds1] web/web.vmdk",
    "persistent",
    "sharingNone",
    "flat",
    ("[ds1] web/web.vmdk",),
    "6000C293",
    True,
    False,
)
VM = VmFacts(
    name="web",
    instance_uuid="u",
    bios_uuid="b",
    power_state="powered_on",
    template=False,
    guest_os="Debian",
    esx_host="esx1",
    esx_version="7.0.3",
    esx_build="1",
    boot_time=None,
    change_version="1",
    vmx_path="[ds1] web/web.vmx",
    disks=(DISK,),
    passthrough=(),
    shared_controllers=(),
    vtpm=False,
    encryption_key="",
    fault_tolerant=False,
    snapshots=(),
    consolidation_needed=False,
    datastores=(DatastoreFacts("ds1", "VMFS", 99 * GIB, 200 * GIB, True),),
    files=(),
)


def with_disk(**changes: Any) -> VmFacts:
    return replace(VM, disks=(replace(DISK, **changes),))


def codes(findings: Any) -> Any:
    return [each.code for each in findings]


def test_a_plain_vm_passes() -> None:
    judgement = judge(VM, CoveragePolicy())
    judgement.require()
    assert judgement.blocking == judgement.refused == judgement.warnings == judgement.left_out == ()


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (replace(VM, template=True), "template"),
        (replace(VM, passthrough=("GPU",)), "pci_passthrough"),
        (replace(VM, shared_controllers=("SCSI controller 1",)), "bus_sharing"),
        (replace(VM, power_state="odd"), "power_state"),
        (with_disk(sharing="sharingMultiWriter"), "multi_writer"),
        (with_disk(backing="rdm_physical"), "physical_rdm"),
        (with_disk(backing="LocalPMemBackingInfo"), "unknown_backing"),
        (with_disk(controller="VirtualUSBController"), "unknown_controller"),
        (with_disk(mode="odd"), "unknown_mode"),
        (with_disk(capacity=0), "no_capacity"),
        (with_disk(capacity=1000), "no_capacity"),
    ],
)
def test_what_cannot_be_backed_up_blocks_and_no_option_allows_it(facts: VmFacts, code: str) -> None:
    judgement = judge(facts, CoveragePolicy(allow=ALLOWABLE))
    assert codes(judgement.blocking) == [code]
    with pytest.raises(VmbackupError) as caught:
        judgement.require()
    assert caught.value.code == "coverage_blocked"
    assert "web" in str(caught.value)


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (with_disk(mode="independent_persistent"), "independent"),
        (replace(VM, vtpm=True), "vtpm"),
        (replace(VM, encryption_key="k"), "encryption"),
        (with_disk(encrypted=True), "encryption"),
        (replace(VM, power_state="suspended"), "suspended"),
        (replace(VM, consolidation_needed=True), "consolidation_needed"),
        (replace(VM, fault_tolerant=True), "fault_tolerance"),
        (replace(VM, datastores=(DatastoreFacts("ds1", "VMFS", GIB - 1, 9 * GIB, True),)), "low_space"),
        (replace(VM, datastores=()), "low_space"),
    ],
)
def test_what_would_be_missed_is_refused_until_it_is_allowed(facts: VmFacts, code: str) -> None:
    refused = judge(facts, CoveragePolicy())
    assert codes(refused.refused) == [code]
    with pytest.raises(VmbackupError) as caught:
        refused.require()
    assert caught.value.code == "coverage_refused"
    assert "allow: ['{}']".format(code) in caught.value.hint
    allowed = judge(facts, CoveragePolicy(allow=frozenset((code,))))
    allowed.require()
    assert codes(allowed.warnings + allowed.left_out) == [code]


def test_excluded_disks_are_named_and_not_judged() -> None:
    second = replace(DISK, label="Hard disk 2", node="scsi0:1", backing="rdm_physical")
    judgement = judge(replace(VM, disks=(DISK, second)), CoveragePolicy(exclude_disks=frozenset(("Hard disk 2",))))
    judgement.require()
    assert [each.object for each in judgement.left_out] == ["Hard disk 2"]


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (CoveragePolicy(exclude_disks=frozenset(("Hard disk 9",))), "unknown_label"),
        (CoveragePolicy(exclude_disks=frozenset(("Hard disk 1",))), "no_disk_left"),
        (CoveragePolicy(allow=frozenset(("everything",))), "unknown_allow"),
    ],
)
def test_a_policy_that_does_not_fit_blocks(policy: CoveragePolicy, code: str) -> None:
    assert codes(judge(VM, policy).blocking) == [code]


def test_space_is_not_asked_for_when_no_snapshot_will_be_made() -> None:
    full = replace(VM, datastores=(DatastoreFacts("ds1", "VMFS", 0, GIB, True),))
    assert not judge(replace(full, power_state="powered_off"), CoveragePolicy()).refused
    assert not judge(replace(full, snapshots=(SnapshotFacts("ours", 1, "", True),)), CoveragePolicy()).refused


def test_snapshots_of_users_are_a_warning() -> None:
    facts = replace(VM, snapshots=(SnapshotFacts("before update", 1, "", False),))
    assert codes(judge(facts, CoveragePolicy()).warnings) == ["user_snapshots"]


def test_the_expected_delta_is_a_tenth_within_bounds() -> None:
    assert expected_delta([replace(DISK, capacity=100 * GIB)]) == 10 * GIB
    assert expected_delta([DISK]) == GIB
    assert expected_delta([replace(DISK, capacity=GIB // 4)]) == GIB // 4


def test_paths_are_split() -> None:
    assert split_path("[ds 1] a b/c.vmdk") == ("ds 1", "a b/c.vmdk")
    assert split_path("plain") == ("", "plain")
