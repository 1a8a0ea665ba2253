#!/usr/bin/python
# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_snapshot
short_description: Take and remove the snapshot that a backup reads from
version_added: 1.0.0
description:
  - Judges whether a backup would cover the VM, and fails when it would miss something that O(allow) does not name.
  - Refuses a VM with disks that O(transport) cannot read, before there is a snapshot.
  - Removes snapshots that dead runs of this collection left on the VM, waits for the VM's turn, and takes the snapshot,
    never with memory.
  - Merges disks that such a run left unmerged, where a mark in O(lock_dir) proves that its removal of a snapshot did it.
  - A powered-off VM needs no snapshot and gets none.
  - The snapshot's name and description say which run holds it. A VM that another live run holds is left alone.
  - Snapshots of users are never touched, and never taken for ours by their name alone.
requirements:
  - pyVmomi
  - requests
extends_documentation_fragment:
  - vmware.vmware.base_options
  - vmbackup.esx.vm
  - vmbackup.esx.attributes
attributes:
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  state:
    description:
      - V(present) takes the snapshot of the backup O(backup_id), or finds it.
      - V(absent) removes the snapshot of the backup O(backup_id) and makes sure that the disks are as they were.
      - V(reaped) removes what dead runs left on this VM. A snapshot that a live run holds stays.
    type: str
    choices: [present, absent, reaped]
    default: present
  orphan_after:
    description:
      - Hours after which a snapshot of ours is an orphan whose lease was never renewed, because the user may not rename it.
    type: int
    default: 24
  max_per_esx_host:
    description:
      - How many VMs of one ESX host may carry a live snapshot of ours at once; 0 sets no limit.
    type: int
    default: 2
  max_per_datastore:
    description:
      - How many VMs of one datastore may carry a live snapshot of ours at once; 0 sets no limit.
    type: int
    default: 2
  wait_for_turn:
    description:
      - Seconds to wait for a turn under these limits.
    type: int
    default: 14400
author:
  - vmbackup.esx contributors (@vmbackup-esx)
"""

EXAMPLES = r"""
- name: Freeze the disks of a VM
  vmbackup.esx.vm_snapshot:
    hostname: esx1.example.org
    username: vmbackup
    password: "{{ vault_vmbackup_esx_password }}"
    vm: web01
    backup_id: 20261122T010000Z-full-7f3a
    controller_id: control01
  delegate_to: localhost

- name: Remove the snapshot of that backup
  vmbackup.esx.vm_snapshot:
    hostname: esx1.example.org
    username: vmbackup
    password: "{{ vault_vmbackup_esx_password }}"
    vm: web01
    backup_id: 20261122T010000Z-full-7f3a
    controller_id: control01
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
reason:
  description: What was done and why, in one sentence.
  returned: success
  type: str
planned:
  description: Whether this is a plan of check mode.
  returned: success
  type: bool
backup_id:
  description: The backup's id.
  returned: always
  type: str
  sample: 20261122T010000Z-full-7f3a
power_state:
  description: Power state of the VM when it was judged.
  returned: when O(state=present)
  type: str
  sample: powered_on
snapshot:
  description: The snapshot's moid, name, time of creation by the server's clock, and whether it is quiesced; null for none.
  returned: when O(state=present)
  type: dict
consistency:
  description: What a restored guest finds, one of C(application), C(crash), C(powered_off).
  returned: when O(state=present)
  type: str
  sample: crash
quiesce_note:
  description: Why the snapshot is not quiesced though that was preferred.
  returned: when O(state=present)
  type: str
judgement:
  description: Lists of findings, C(blocking), C(refused), C(warnings) and C(left_out).
  returned: when O(state=present)
  type: dict
reaped:
  description: Ids of the backups of dead runs whose snapshots were removed, or whose removal was finished.
  returned: when O(state=present) or O(state=reaped)
  type: list
  elements: str
held:
  description: Ids of the backups of live runs whose snapshots stay.
  returned: when O(state=reaped)
  type: list
  elements: str
removal:
  description: Seconds and tries that the removal took, and whether the disks had to be consolidated.
  returned: when O(state=absent)
  type: dict
waited_seconds:
  description: Seconds that were spent waiting for a turn.
  returned: when O(state=present)
  type: float
vm:
  description: Name, instance UUID and managed object id of the VM in vSphere.
  returned: always
  type: dict
code:
  description: The error's code, as docs/errors.md lists it.
  returned: failure
  type: str
hint:
  description: Which option helps.
  returned: failure
  type: str
"""

import atexit
import os
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, Dict, Optional, Tuple

from ansible_collections.vmbackup.esx.plugins.module_utils.core.utc import utc_text
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.coverage import (
    CoveragePolicy,
    Judgement,
    judge,
)
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.facts import VmFacts
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.lease import Lease
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.owner_lock import (
    find_owner,
    proves_death,
    write_lock,
)
from ansible_collections.vmbackup.esx.plugins.module_utils.glue.boundary import Params, Plan, Result, run
from ansible_collections.vmbackup.esx.plugins.module_utils.glue.vm_options import (
    connection_values,
    required_backup_id,
    selector_values,
    vm_argument_spec,
)
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.claim import Rules, claim, look, require_free
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.datastore import require_readable
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.facts import read_facts, require_config
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.lookup import VmSelector, find_vm, plain_name
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.reaping import Standing, reap
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.session import Connection, Session
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.snapshot_removal import remove_snapshot
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.snapshot_tree import OurSnapshot, renew_if_allowed
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.turns import Limits, turn
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.unmerged import unmerged_by_us


class Order:
    """One call of the module: the open session, the VM, and what its options say."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self.session = Session.open(Connection(**connection_values(params)))
        atexit.register(self.session.close)
        self.machine = find_vm(self.session, VmSelector(**selector_values(params)))
        title = self.session.title(self.machine)
        config = self.session.ask("reading the identity of VM " + title, lambda: self.machine.config, True)
        require_config({"config": config, "runtime": True}, title)
        self.uuid = str(config.instanceUuid)
        self.identity = {
            "name": plain_name(config.name),
            "instance_uuid": self.uuid,
            "moid": self.machine._moId,
        }
        self.timeout = float(params["task_timeout"])
        self.orphan_after = timedelta(hours=params["orphan_after"])
        self.lock_dir = str(params["lock_dir"])
        self.rules = Rules(params["quiesce"], self.timeout, self.owner_dead, self.orphan_after, self.lock_dir)

    def owner_dead(self, lease: Lease) -> bool:
        """Tell whether a lock of this controller proves that a lease's owner is dead."""
        mine = lease.controller_id == self.params["controller_id"]
        return mine and proves_death(
            self.params["lock_dir"], self.uuid, backup_id=lease.id, controller_id=lease.controller_id
        )

    def look(self) -> Standing:
        """Sort our snapshots of the VM, and find what a dead run left of one while no run holds the VM."""
        found = look(self.session, self.machine, self.params["backup_id"] or "", self.rules)
        if found.mine or found.live:
            return found
        return replace(found, unmerged=unmerged_by_us(self.session, self.machine, self.lock_dir, self.uuid))

    def reap(self, found: Standing) -> Any:
        """Remove what dead runs left; return the ids of their backups."""
        return reap(self.session, self.machine, found.leftovers, timeout=self.timeout, lock_dir=self.lock_dir)

    def judged(self) -> Tuple[VmFacts, Judgement]:
        """Look at the VM and judge it."""
        facts = read_facts(self.session, self.machine)
        policy = CoveragePolicy(frozenset(self.params["allow"]), frozenset(self.params["exclude_disks"]))
        return facts, judge(facts, policy)

    def require_readable(self) -> None:
        """Refuse a VM whose disks could be frozen but not read."""
        require_readable(self.session, self.machine, self.params["exclude_disks"])

    def lock(self) -> None:
        """Note in this controller's lock file that the VM's backup belongs to the playbook above us."""
        write_lock(
            self.params["lock_dir"],
            self.uuid,
            backup_id=self.params["backup_id"],
            controller_id=self.params["controller_id"],
            mover_is_local=self.params["mover_is_local"],
            owner=find_owner(os.getpid()),
        )


def plan_present(order: Order) -> Plan:
    """Plan the snapshot: judged, then found, or planned with what is to be reaped first.

    With leftovers of dead runs, the VM that counts is the one without them: it is judged when they are gone, and they go
    in any case.
    """
    found = order.look()
    facts, judgement = order.judged()
    if not found.leftovers:
        judgement.require()
    ground: Dict[str, Any] = {
        "backup_id": required_backup_id(order.params),
        "vm": order.identity,
        "power_state": facts.power_state,
        "judgement": {
            kind: [vars(each) for each in getattr(judgement, kind)]
            for kind in ("blocking", "refused", "warnings", "left_out")
        },
        "reaped": found.leftovers,
        "waited_seconds": 0.0,
    }
    if found.mine:
        return Plan(
            False, "The snapshot is there.", {**ground, **shown(found.mine[0])}, apply=lambda: keep(order, found)
        )
    require_free(order.session, order.machine, found)
    if not found.leftovers:
        order.require_readable()
    if facts.power_state == "powered_off":
        return Plan(
            bool(found.leftovers),
            "The VM is powered off: its disks stand still without a snapshot.",
            {**ground, **shown(None)},
            apply=lambda: prepare(order, found),
        )
    planned = {"moid": None, "name": "vmbackup-" + ground["backup_id"], "created": None, "quiesced": None}
    return Plan(
        True,
        "The VM runs, so its disks are frozen by a snapshot.",
        {**ground, "snapshot": planned, "consistency": None, "quiesce_note": ""},
        apply=lambda: take(order, found),
    )


def keep(order: Order, found: Standing) -> Result:
    """Renew the lease of the snapshot that is there, and reap."""
    order.lock()
    kept = renew_if_allowed(order.session, order.machine, found.mine[0])
    return {"changed": bool(found.leftovers), **shown(kept), "reaped": order.reap(found)}


def prepare(order: Order, found: Standing) -> Result:
    """Lock and reap; what a powered-off VM needs."""
    order.lock()
    reaped = order.reap(found)
    if reaped:
        order.judged()[1].require()
        order.require_readable()
    return {"reaped": reaped}


def take(order: Order, found: Standing) -> Result:
    """Reap, wait for the turn, lock and take the snapshot.

    A dead run's module may have taken its snapshot while we waited for the turn, so what is there is looked at again.
    """
    reaped = order.reap(found)
    limits = Limits(order.params["max_per_esx_host"], order.params["max_per_datastore"], order.orphan_after)
    wait = float(order.params["wait_for_turn"])
    with turn(order.session, order.machine, limits, order.params["lock_dir"], wait=wait) as waited:
        found = order.look()
        require_free(order.session, order.machine, found)
        reaped += order.reap(found)
        order.judged()[1].require()  # the wait may have been long
        if reaped:
            order.require_readable()
        order.lock()
        lease = Lease(
            order.params["backup_id"],
            order.params["run"],
            order.params["controller_id"],
            None,
            datetime.now(timezone.utc),
        )
        snapshot = claim(order.session, order.machine, lease, order.rules)
    return {"reaped": reaped, **shown(snapshot), "waited_seconds": round(waited, 1)}


def shown(snapshot: Optional[OurSnapshot]) -> Result:
    """Return what the result says of a snapshot."""
    if snapshot is None:
        return {"snapshot": None, "consistency": "powered_off", "quiesce_note": ""}
    return {
        "snapshot": {
            "moid": snapshot.moid,
            "name": snapshot.name,
            "created": utc_text(snapshot.created),
            "quiesced": snapshot.quiesced,
        },
        "consistency": "application" if snapshot.quiesced else "crash",
        "quiesce_note": snapshot.note,
    }


def plan_absent(order: Order) -> Plan:
    """Plan the removal of this backup's snapshot."""
    backup_id = required_backup_id(order.params)
    there = bool(order.look().mine)
    reason = "The snapshot is there." if there else "The snapshot is gone; the disks are checked."
    ground = {"backup_id": backup_id, "vm": order.identity}
    return Plan(there, reason, ground, apply=lambda: removed(order, backup_id))


def removed(order: Order, backup_id: str) -> Result:
    """Remove this backup's snapshot; tell how it went."""
    removal = remove_snapshot(order.session, order.machine, backup_id, timeout=order.timeout, lock_dir=order.lock_dir)
    return {"changed": removal.tries > 0, "removal": vars(removal)}


def plan_reaped(order: Order) -> Plan:
    """Plan the removal of what dead runs left on this VM."""
    found = order.look()
    held = [each.lease.id for each in found.live]
    reason = "{} of our snapshots on this VM are orphans, {} are held by live runs{}.".format(
        len(found.orphans), len(held), "; disks that a dead run left unmerged are merged" if found.unmerged else ""
    )
    ground = {"backup_id": order.params["backup_id"], "vm": order.identity, "reaped": found.leftovers, "held": held}
    return Plan(bool(found.leftovers), reason, ground, apply=lambda: {"reaped": order.reap(found)})


def make_plan(params: Params) -> Plan:
    """Log in, find the VM and plan."""
    planners = {"present": plan_present, "absent": plan_absent, "reaped": plan_reaped}
    return planners[params["state"]](Order(params))


def main() -> None:
    spec = {
        **vm_argument_spec(),
        "state": {"type": "str", "choices": ["present", "absent", "reaped"], "default": "present"},
        "orphan_after": {"type": "int", "default": 24},
        "max_per_esx_host": {"type": "int", "default": 2},
        "max_per_datastore": {"type": "int", "default": 2},
        "wait_for_turn": {"type": "int", "default": 14400},
    }
    run(spec, make_plan, required_if=[("state", "present", ["backup_id"]), ("state", "absent", ["backup_id"])])


if __name__ == "__main__":
    main()
