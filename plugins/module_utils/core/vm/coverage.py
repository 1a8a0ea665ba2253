# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup of a VM would cover, what it would miss, what blocks it.

Invariant: fail-closed; what is not understood blocks, and what would be missed is refused until it is allowed by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Tuple

from ..errors import VmbackupError
from .facts import CONTROLLERS, DatastoreFacts, DiskFacts, VmFacts

GIB = 1 << 30
ALLOWABLE = frozenset(
    ("independent", "vtpm", "encryption", "low_space", "consolidation_needed", "suspended", "fault_tolerance")
)
_COVERED_BACKINGS = frozenset(("flat", "sesparse", "rdm_virtual"))
_MODES = frozenset(
    ("persistent", "append", "undoable", "nonpersistent", "independent_persistent", "independent_nonpersistent")
)


@dataclass(frozen=True)
class CoveragePolicy:
    """allow: names out of ALLOWABLE. exclude_disks: labels of disks that the user leaves out."""

    allow: frozenset[str] = frozenset()
    exclude_disks: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Finding:
    """One thing that was found. object: the VM, disk, controller or datastore it is about."""

    code: str
    object: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Judgement:
    """blocking: cannot be backed up. refused: would be, if allowed. left_out: what the backup will miss."""

    vm: str
    blocking: Tuple[Finding, ...]
    refused: Tuple[Finding, ...]
    warnings: Tuple[Finding, ...]
    left_out: Tuple[Finding, ...]

    def require(self) -> None:
        """Raise coverage_blocked or coverage_refused, naming every finding."""
        if not self.blocking and not self.refused:
            return
        found = self.blocking + self.refused
        text = "VM {} is not backed up: {}".format(self.vm, "; ".join(each.message for each in found))
        hint = "; ".join(dict.fromkeys(each.hint for each in found if each.hint))
        if self.blocking:
            raise VmbackupError("coverage_blocked", text, hint)
        raise VmbackupError("coverage_refused", text, hint)


def judge(facts: VmFacts, policy: CoveragePolicy) -> Judgement:
    """Judge a VM by what is known of it."""
    disks = [disk for disk in facts.disks if disk.label not in policy.exclude_disks]
    blocking = [*_options(facts, policy), *_machine_blocks(facts), *(f for disk in disks for f in _disk_blocks(disk))]
    if facts.disks and not disks:
        blocking.append(Finding("no_disk_left", facts.name, "every disk is left out", "shorten exclude_disks"))
    risks: Dict[str, List[Finding]] = {}
    for finding in _risks(facts, disks):
        risks.setdefault(finding.code, []).append(finding)
    refused = [f for code, found in risks.items() if code not in policy.allow for f in found]
    allowed = [f for code, found in risks.items() if code in policy.allow for f in found]
    left_out = [
        Finding("excluded", disk.label, "{} is left out as asked".format(_named(disk)))
        for disk in facts.disks
        if disk.label in policy.exclude_disks
    ]
    left_out += [f for f in allowed if f.code in ("independent", "suspended")]
    warnings = [f for f in allowed if f not in left_out] + list(_notes(facts))
    return Judgement(facts.name, tuple(blocking), tuple(refused), tuple(warnings), tuple(left_out))


def expected_delta(disks: List[DiskFacts]) -> int:
    """Return the bytes that a snapshot may need on the datastore of `disks`.

    A tenth of the disks, which is what a busy guest rewrites in hours, but at least 1 GiB, because small disks may be
    rewritten as a whole; never more than the disks' capacity, because a delta cannot outgrow its disk.
    """
    capacity = sum(disk.capacity for disk in disks)
    return min(capacity, max(GIB, capacity // 10))


def _named(disk: DiskFacts) -> str:
    return "disk '{}' ({}, {})".format(disk.label, disk.node, disk.path)


def _options(facts: VmFacts, policy: CoveragePolicy) -> Iterator[Finding]:
    labels = {disk.label for disk in facts.disks}
    for label in sorted(policy.exclude_disks - labels):
        known = ", ".join("'{}'".format(each) for each in sorted(labels)) or "no disk"
        message = "exclude_disks names '{}', but the VM has {}".format(label, known)
        yield Finding("unknown_label", label, message, "correct exclude_disks")
    for name in sorted(policy.allow - ALLOWABLE):
        message = "allow names '{}', which is not one of {}".format(name, ", ".join(sorted(ALLOWABLE)))
        yield Finding("unknown_allow", name, message, "correct allow")


def _machine_blocks(facts: VmFacts) -> Iterator[Finding]:
    if facts.template:
        yield Finding("template", facts.name, "it is a template", "convert it to a VM, or take it out of the inventory")
    for device in facts.passthrough:
        message = "PCI passthrough device '{}' allows no snapshot".format(device)
        yield Finding("pci_passthrough", device, message, "back this VM up from inside the guest")
    for controller in facts.shared_controllers:
        message = "controller '{}' shares its bus with other VMs, which allows no snapshot".format(controller)
        yield Finding("bus_sharing", controller, message, "back this cluster up from inside a guest")
    if facts.power_state not in ("powered_on", "powered_off", "suspended"):
        yield Finding("power_state", facts.name, "its power state '{}' is not known".format(facts.power_state))
    for disk in facts.disks:
        if disk.sharing not in ("", "sharingNone"):
            message = "{} may be written by several VMs, which allows no snapshot".format(_named(disk))
            yield Finding("multi_writer", disk.label, message, "back this cluster up from inside a guest")


def _disk_blocks(disk: DiskFacts) -> Iterator[Finding]:
    leave = "leave it out by exclude_disks: ['{}']".format(disk.label)
    if disk.backing == "rdm_physical":
        yield Finding("physical_rdm", disk.label, "{} is a physical RDM".format(_named(disk)), leave)
    elif disk.backing not in _COVERED_BACKINGS:
        message = "{} has a backing that is not known: {}".format(_named(disk), disk.backing)
        yield Finding("unknown_backing", disk.label, message, leave)
    if disk.controller not in CONTROLLERS:
        message = "{} hangs on a controller that is not known: {}".format(_named(disk), disk.controller)
        yield Finding("unknown_controller", disk.label, message, leave)
    if disk.mode not in _MODES:
        yield Finding("unknown_mode", disk.label, "{} has an unknown mode '{}'".format(_named(disk), disk.mode), leave)
    if disk.capacity <= 0 or disk.capacity % 512:
        message = "{} has no usable capacity ({} bytes)".format(_named(disk), disk.capacity)
        yield Finding("no_capacity", disk.label, message, leave)


def _risks(facts: VmFacts, disks: List[DiskFacts]) -> Iterator[Finding]:
    """Yield what is refused unless allowed; the code is the name that allows it."""
    if facts.power_state != "powered_off":
        for disk in disks:
            if disk.independent:
                yield _risk("independent", disk.label, "{} is independent: no snapshot holds it".format(_named(disk)))
    if facts.power_state == "suspended":
        message = "it is suspended: its memory is not in the backup, the disks are as after a power cut"
        yield _risk("suspended", facts.name, message)
    if facts.vtpm:
        yield _risk("vtpm", facts.name, "it has a vTPM: a restore needs the same key provider")
    if facts.encryption_key or any(disk.encrypted for disk in disks):
        message = "it is encrypted (key {}): a restore needs the same key provider".format(facts.encryption_key or "?")
        yield _risk("encryption", facts.name, message)
    if facts.fault_tolerant:
        yield _risk("fault_tolerance", facts.name, "it is protected by fault tolerance, which limits snapshots")
    if facts.consolidation_needed:
        message = "its disks need consolidation: a snapshot on top would make the chain longer"
        yield _risk("consolidation_needed", facts.name, message)
    if facts.power_state != "powered_off" and not any(each.ours for each in facts.snapshots):
        yield from _space(facts)


def _space(facts: VmFacts) -> Iterator[Finding]:
    """Judge all disks, those left out too: the snapshot makes a delta for each of them."""
    stores: Dict[str, DatastoreFacts] = {each.name: each for each in facts.datastores}
    grouped: Dict[str, List[DiskFacts]] = {}
    for disk in facts.disks:
        if not disk.independent:
            grouped.setdefault(disk.datastore, []).append(disk)
    for name, disks in sorted(grouped.items()):
        message = _shortage(stores.get(name), name, expected_delta(disks))
        if message is not None:
            yield _risk("low_space", name, message)


def _shortage(store: Optional[DatastoreFacts], name: str, needed: int) -> Optional[str]:
    if store is None or not store.accessible:
        return "datastore '{}' cannot be seen, so its free space is not known".format(name)
    if store.free >= needed:
        return None
    return "datastore '{}' has {} MiB free, a snapshot may need {} MiB".format(name, store.free >> 20, needed >> 20)


def _risk(code: str, thing: str, message: str) -> Finding:
    return Finding(code, thing, message, "allow: ['{}'] accepts that".format(code))


def _notes(facts: VmFacts) -> Iterator[Finding]:
    users = [each.name for each in facts.snapshots if not each.ours]
    if users:
        message = "it has snapshots of its users, which stay and are not restored: {}".format(", ".join(users))
        yield Finding("user_snapshots", facts.name, message)
    if not facts.disks:
        yield Finding("no_disks", facts.name, "it has no disk: only its configuration is backed up")
