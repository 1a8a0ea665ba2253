#!/usr/bin/python
# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_archive
short_description: Pack the frozen files of a VM into a backup
version_added: 1.0.0
description:
  - Packs what the snapshot of M(vmbackup.esx.vm_snapshot) froze into one C(tar.gz), with manifest, checksums and RECOVER.txt.
  - Removes the snapshot after the last byte was read, on any error, and on SIGTERM, SIGINT and SIGHUP.
  - The lease in the snapshot's description is renewed every five minutes, so that other runs know that this one lives.
  - A powered-off VM is packed without a snapshot. If it is powered on meanwhile, the pack is discarded and made again with one.
  - Runs on the mover, a Linux host that reaches the vSphere API.
requirements:
  - pyVmomi
  - requests
  - isal (optional; packs three times as fast)
extends_documentation_fragment:
  - vmware.vmware.base_options
  - vmbackup.esx.vm
  - vmbackup.esx.store
  - vmbackup.esx.attributes
attributes:
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  way:
    description:
      - V(staged) packs into a folder of the mover, for M(vmbackup.esx.archive_copy) to send later.
      - V(pulled) packs into O(destination) as the store itself, because the mover is the store, and verifies there.
      - V(streamed) packs into the link to O(store), with nothing of the archive on the mover's disk. The snapshot stays open
        while sending.
    type: str
    choices: [staged, streamed, pulled]
    default: staged
  destination:
    description:
      - Root folder on the mover that takes the backup, for V(staged) and V(pulled).
    type: path
  codec:
    description:
      - Who compresses. V(auto) takes isal where the mover has it, else zlib.
    type: str
    choices: [auto, isal, zlib]
    default: auto
  level:
    description:
      - Level of the codec. By default its fastest sensible one.
    type: int
  threads:
    description:
      - Threads that compress. By default one a core, four at most.
    type: int
  include_logs:
    description:
      - Whether the VM's logs are packed.
    type: bool
    default: false
  adopt:
    description:
      - Whether the folder of a VM with another instance UUID may be taken over, because a restored VM took its place.
    type: bool
    default: false
  rate_limit:
    description:
      - Bytes a second that streaming may send. By default there is no limit.
    type: int
  retry_for:
    description:
      - Seconds for which a broken link is tried again while streaming.
    type: int
    default: 300
author:
  - vmbackup.esx contributors (@vmbackup-esx)
"""

EXAMPLES = r"""
- name: Pack the VM into the staging folder
  vmbackup.esx.vm_archive:
    hostname: esx1.example.org
    username: vmbackup
    password: "{{ vault_vmbackup_esx_password }}"
    vm: web01
    backup_id: 20261122T010000Z-full-7f3a
    controller_id: control01
    destination: /var/lib/vmbackup/staging
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
path:
  description: The backup's folder, on the mover or in the store.
  returned: when packed
  type: str
archive:
  description: Name, size in bytes and SHA-256 of the archive.
  returned: when packed
  type: dict
bytes_read:
  description: Bytes of content that were packed.
  returned: when packed
  type: int
consistency:
  description: What a restored guest finds.
  returned: when packed
  type: str
  sample: crash
left_out:
  description: What the backup misses, and why.
  returned: when packed
  type: list
  elements: dict
read_seconds:
  description: Seconds from the first byte to the last.
  returned: when packed
  type: float
snapshot_open_seconds:
  description: Seconds from the first byte to the end of the snapshot's removal; 0 without a snapshot.
  returned: when packed
  type: float
disks:
  description: Labels and capacities of the disks that are packed.
  returned: always
  type: list
  elements: dict
lease_failures:
  description: Why the lease in the snapshot's description could not be renewed, each time.
  returned: when packed
  type: list
  elements: str
code:
  description: The error's code, as docs/errors.md lists it.
  returned: failure
  type: str
hint:
  description: Which option helps.
  returned: failure
  type: str
release_failed:
  description: Why the snapshot could not be removed after the failure.
  returned: failure, when it could not
  type: str
"""

import atexit
import os
import platform
from contextlib import ExitStack
from datetime import datetime, timezone
from typing import Any, ContextManager, Dict

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.readable import readable_bytes, readable_seconds
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.folder import INCOMING_KEPT, StoreTree
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.ssh_link import open_link
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.stream_sink import StreamedBackup
from ansible_collections.vmbackup.esx.plugins.module_utils.core.version import COLLECTION_VERSION
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.coverage import judge
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.facts import VmFacts
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.owner_lock import hold
from ansible_collections.vmbackup.esx.plugins.module_utils.glue.boundary import Params, Plan, Result, run
from ansible_collections.vmbackup.esx.plugins.module_utils.glue.store_options import store_address, store_spec
from ansible_collections.vmbackup.esx.plugins.module_utils.glue.vm_options import (
    connection_values,
    coverage_policy,
    required_backup_id,
    selector_values,
    vm_argument_spec,
)
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.facts import read_facts
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.full import Destination, FullResult, make_full
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.full_order import FullOrder
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.lookup import VmSelector, find_vm
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.packing import PackingOptions
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.session import Connection, Session
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.snapshot_removal import remove_snapshot


def make_plan(params: Params) -> Plan:
    """Log in, find and judge the VM, and say what would be packed."""
    backup_id = required_backup_id(params)
    session = Session.open(Connection(**connection_values(params)))
    atexit.register(session.close)
    vm_obj = find_vm(session, VmSelector(**selector_values(params)))
    facts = read_facts(session, vm_obj)
    policy = coverage_policy(params)
    judge(facts, policy).require()
    packed = [disk for disk in facts.disks if disk.label not in policy.exclude_disks]
    total = readable_bytes(sum(disk.capacity for disk in packed))
    return Plan(
        True,
        "Would pack {} disks of {}, {}.".format(len(packed), total, params["way"]),
        {"backup_id": backup_id, "disks": [{"label": disk.label, "capacity": disk.capacity} for disk in packed]},
        apply=lambda: pack(params, session, vm_obj, facts),
    )


def pack(params: Params, session: Session, vm_obj: Any, facts: VmFacts) -> Result:
    """Pack and commit; then tell of a snapshot that would not go."""
    with ExitStack() as stack:
        if params["mover_is_local"]:
            stack.enter_context(hold(params["lock_dir"], facts.instance_uuid, params["backup_id"]))
        result = make_full(session, vm_obj, order_of(params), lambda: open_destination(params))
    if result.held.removal_error is not None:
        raise VmbackupError(
            "snapshot_not_removed",
            "The backup {} is complete, but: {}".format(params["backup_id"], result.held.removal_error.message),
            result.held.removal_error.hint,
        )
    return told(result)


def told(result: FullResult) -> Result:
    """Return what the module answers for a committed backup."""
    manifest = result.manifest
    return {
        "path": result.path,
        "archive": vars(manifest.archive),
        "bytes_read": result.reading.packed.bytes_read,
        "consistency": manifest.consistency,
        "left_out": [vars(each) for each in manifest.left_out],
        "read_seconds": round(result.held.read_seconds, 3),
        "snapshot_open_seconds": round(result.held.open_seconds, 3),
        "lease_failures": result.held.lease.failures,
        "reason": "{} packed into {} ({}), snapshot open for {}".format(
            readable_bytes(result.reading.packed.bytes_read),
            readable_bytes(manifest.archive.size),
            manifest.consistency,
            readable_seconds(result.held.open_seconds),
        ),
    }


def open_destination(params: Params) -> ContextManager[Destination]:
    """Open a new, empty place for the backup; what interrupted runs left where it grows is removed first."""
    if params["way"] == "streamed":
        return StreamedBackup(
            open_link(store_address(params)),
            params["vm"],
            params["backup_id"],
            rate_limit=params["rate_limit"],
            retry_for=params["retry_for"],
            adopt=params["adopt"],
        )
    keep = 0.0 if params["way"] == "staged" else INCOMING_KEPT
    tree = StoreTree(params["destination"])
    return tree.incoming(params["vm"], params["backup_id"], adopt=params["adopt"], sweep=keep)


def order_of(params: Params) -> FullOrder:
    """Return the order that the options make."""
    return FullOrder(
        vm=params["vm"],
        backup_id=params["backup_id"],
        run=params["run"],
        controller_id=params["controller_id"],
        policy=coverage_policy(params),
        quiesce=params["quiesce"],
        task_timeout=float(params["task_timeout"]),
        packing=PackingOptions(params["codec"], params["level"], params["threads"], params["include_logs"]),
        scratch=params["destination"] or os.environ.get("TMPDIR") or "/var/tmp",  # /tmp may be memory
        collection_version=COLLECTION_VERSION,
        node=platform.node(),
        now=lambda: datetime.now(timezone.utc),
        verify=params["way"] != "staged",
        restartable=params["way"] != "streamed",
        lock_dir=marks_of(params),
    )


def marks_of(params: Params) -> str:
    """Return where removals are marked: only on the controller does vm_snapshot look for it."""
    return str(params["lock_dir"]) if params["mover_is_local"] else ""


def release(params: Params, code: str) -> None:
    """Remove the snapshot that this module was handed, over a session of its own; code: of the failure."""
    if code == "snapshot_not_removed":
        return  # that was tried just now, with patience
    with Session.open(Connection(**connection_values(params))) as session:
        vm_obj = find_vm(session, VmSelector(**selector_values(params)))
        timeout = float(params["task_timeout"])
        remove_snapshot(session, vm_obj, params["backup_id"], timeout=timeout, lock_dir=marks_of(params))


def main() -> None:
    spec: Dict[str, Any] = {
        **vm_argument_spec(),
        "way": {"type": "str", "choices": ["staged", "streamed", "pulled"], "default": "staged"},
        "destination": {"type": "path"},
        **store_spec(),
        "codec": {"type": "str", "choices": ["auto", "isal", "zlib"], "default": "auto"},
        "level": {"type": "int"},
        "threads": {"type": "int"},
        "include_logs": {"type": "bool", "default": False},
        "adopt": {"type": "bool", "default": False},
        "rate_limit": {"type": "int"},
        "retry_for": {"type": "int", "default": 300},
    }
    needs = [("way", "staged", ["destination"]), ("way", "pulled", ["destination"]), ("way", "streamed", ["store"])]
    run(spec, make_plan, on_failure=release, required_if=needs)


if __name__ == "__main__":
    main()
