#!/usr/bin/python
# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: file_archive
short_description: Back up the files of a guest that changed
version_added: 1.0.0
description:
  - Scans the guest, packs the files that were created or changed since the backup that the store has last, and notes what was deleted.
  - The archive is a plain C(tar.gz), with owners, extended attributes, ACLs, hard links and holes.
  - A backup without any change is made as well; it says that nothing changed until then.
  - What an earlier run packed and could not send stays staged and is gone on from. What no longer fits the chain is dropped.
  - Runs on the guest, which needs Linux, Python 3.8 and OpenSSH's client. One run at a time.
requirements:
  - OpenSSH client
  - isal (optional; packs three times as fast)
extends_documentation_fragment:
  - vmbackup.esx.files
  - vmbackup.esx.store
  - vmbackup.esx.attributes
attributes:
  diff_mode:
    description: M(vmbackup.esx.file_diff) tells what would be saved.
    support: none
options:
  backup_id:
    description:
      - Id of the new backup, such as V(20261122T130000Z-incremental-02c9). Its time is what "as of" compares with.
    type: str
    required: true
  level:
    description:
      - V(incremental) saves what changed since the last backup, V(differential) what changed since the full.
    type: str
    choices: [incremental, differential]
    default: incremental
  complete_without_baseline:
    description:
      - Whether to save all files, upon a full that is in the store, where the guest has no index to compare with.
    type: bool
    default: false
  allow_unreadable:
    description:
      - Whether a backup that misses files that could not be read is good. It is made in any case, and tries them again the next time.
    type: bool
    default: false
  way:
    description:
      - V(staged) packs into O(destination), for M(vmbackup.esx.archive_copy) to send.
      - V(streamed) packs into the link to O(store); only indexes, and copies of files that shrink while they are read, touch the guest's disk.
    type: str
    choices: [staged, streamed]
    default: staged
  destination:
    description:
      - Folder on the guest that takes the backup. Never part of one.
    type: path
    required: true
  codec:
    description:
      - Who compresses. V(auto) takes isal where the guest has it, else zlib.
    type: str
    choices: [auto, isal, zlib]
    default: auto
  codec_level:
    description:
      - Level of the codec. By default its fastest sensible one.
    type: int
  threads:
    description:
      - Threads that compress.
    type: int
    default: 1
  rate_limit:
    description:
      - Bytes a second that streaming may send. By default there is no limit.
    type: int
  retry_for:
    description:
      - Seconds for which a broken link is tried again.
    type: int
    default: 300
author:
  - vmbackup.esx contributors (@vmbackup-esx)
"""

EXAMPLES = r"""
- name: Pack what changed since the last backup
  vmbackup.esx.file_archive:
    vm: web01
    backup_id: 20261122T130000Z-incremental-02c9
    destination: /var/lib/vmbackup/staging
    store:
      host: store.example.org
      key_file: /var/lib/vmbackup/key
      known_hosts: /var/lib/vmbackup/known_hosts
  become: true
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
parent:
  description: The backup that it stands on.
  returned: success
  type: str
base:
  description: The full that its chain stands on.
  returned: success
  type: str
path:
  description: The backup's folder, on the guest or in the store.
  returned: when packed
  type: str
archive:
  description: Name, size in bytes and SHA-256 of the archive.
  returned: when packed
  type: dict
changes:
  description: How much of what was found and saved.
  returned: when packed
  type: dict
left_out:
  description: What the backup misses, and why; 1,000 at most.
  returned: when packed
  type: list
  elements: dict
code:
  description: The error's code, as docs/errors.md lists it.
  returned: failure
  type: str
"""

import platform
from datetime import datetime, timezone
from typing import Any, ContextManager, Dict, Union

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.readable import readable_bytes
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.incoming import IncomingBackup
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.names import parse_backup_id
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.ssh_link import open_link
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.stream_sink import StreamedBackup
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.guest_chain import GuestChain
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.guest_state import GuestState
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.incremental import (
    FilesOrder,
    FilesResult,
    make_incremental,
)
from ansible_collections.vmbackup.esx.plugins.module_utils.core.version import COLLECTION_VERSION
from ansible_collections.vmbackup.esx.plugins.module_utils.glue.boundary import Params, Plan, Result, run
from ansible_collections.vmbackup.esx.plugins.module_utils.glue.file_options import (
    file_spec,
    left_out_of,
    scan_rules,
    shown_path,
    take_priority,
)
from ansible_collections.vmbackup.esx.plugins.module_utils.glue.store_options import store_address, store_spec

SPEC: Dict[str, Any] = {
    **file_spec(),
    **store_spec(),
    "backup_id": {"type": "str", "required": True},
    "level": {"type": "str", "choices": ["incremental", "differential"], "default": "incremental"},
    "complete_without_baseline": {"type": "bool", "default": False},
    "allow_unreadable": {"type": "bool", "default": False},
    "way": {"type": "str", "choices": ["staged", "streamed"], "default": "staged"},
    "destination": {"type": "path", "required": True},
    "codec": {"type": "str", "choices": ["auto", "isal", "zlib"], "default": "auto"},
    "codec_level": {"type": "int"},
    "threads": {"type": "int", "default": 1},
    "rate_limit": {"type": "int"},
    "retry_for": {"type": "int", "default": 300},
}


def make_plan(params: Params) -> Plan:
    """Find what the backup stands on."""
    order = order_of(params)
    chain = GuestChain(
        params["vm"],
        GuestState(params["state_dir"], params["vm"]),
        params["destination"],
        open_link(store_address(params)),
        params["retry_for"],
    )
    parent = chain.parent(chain.look(), order.now(), differential=order.differential, complete=order.complete)
    return Plan(
        True,  # even where no file changed: the new backup moves what can be restored up to now
        "would save what changed {}".format(parent.reason),
        {"backup_id": order.backup_id, "parent": parent.id, "base": parent.base},
        apply=lambda: _apply(chain, order, params),
    )


def order_of(params: Params) -> FilesOrder:
    """Return the order that the options make; raises backup_id_invalid, and what ScanRules raises."""
    if parse_backup_id(params["backup_id"]).kind != "incremental":
        raise VmbackupError(
            "backup_id_invalid",
            "{} is not the id of an incremental.".format(params["backup_id"]),
            "An id looks like 20261122T130000Z-incremental-02c9.",
        )
    return FilesOrder(
        backup_id=params["backup_id"],
        rules=scan_rules(params, params["destination"]),
        differential=params["level"] == "differential",
        complete=params["complete_without_baseline"],
        streamed=params["way"] == "streamed",
        codec=params["codec"],
        codec_level=params["codec_level"],
        threads=params["threads"],
        node=platform.node(),
        collection_version=COLLECTION_VERSION,
        now=lambda: datetime.now(timezone.utc),
    )


def _apply(chain: GuestChain, order: FilesOrder, params: Params) -> Result:
    take_priority(params)

    def destination() -> ContextManager[Union[IncomingBackup, StreamedBackup]]:
        if not order.streamed:
            return chain.tree.incoming(params["vm"], order.backup_id, sweep=0.0)
        return StreamedBackup(
            open_link(store_address(params)),
            params["vm"],
            order.backup_id,
            rate_limit=params["rate_limit"],
            retry_for=params["retry_for"],
        )

    made = make_incremental(chain, order, destination)
    unreadable = [(each.path, each.reason) for each in made.packed.missing if each.kind == "unreadable"]
    unreadable += [(each.what, each.reason) for each in made.survey.left_out if each.kind == "unreadable"]
    if unreadable and not params["allow_unreadable"]:
        path, reason = unreadable[0]
        raise VmbackupError(
            "files_unreadable",
            "The backup {} is complete but for {} files or folders that could not be read, such as {}: {}.".format(
                order.backup_id, len(unreadable), shown_path(path), reason
            ),
            "Let it become root (vmbackup_guest_become), leave them out by exclude, or set allow_unreadable.",
        )
    return told(made)


def told(made: FilesResult) -> Result:
    """Return what the module answers for a backup that was made."""
    manifest, counts = made.manifest, made.survey.counts
    missed = len(made.packed.missing) + len(made.packed.unstable)
    parts = [
        "{} in {} files packed into {} {}".format(
            readable_bytes(made.packed.bytes_read),
            made.packed.files,
            readable_bytes(manifest.archive.size),
            made.parent.reason,
        ),
        "{} deleted".format(counts["deleted"]),
        "{} vanished or changed while they were read".format(missed) if missed else "",
        "{} folders left out".format(len(made.survey.left_out)) if made.survey.left_out else "",
    ]
    return {
        "parent": made.parent.id,
        "base": made.parent.base,
        "path": made.path,
        "archive": vars(manifest.archive),
        "changes": manifest.changes,
        "left_out": left_out_of(made.survey),
        "reason": ", ".join(part for part in parts if part),
    }


def main() -> None:
    """Run the module."""
    run(SPEC, make_plan)


if __name__ == "__main__":
    main()
