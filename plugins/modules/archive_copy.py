#!/usr/bin/python
# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: archive_copy
short_description: Copy staged backups to the store
version_added: 1.0.0
description:
  - Sends what was packed into a staging folder to the store, over SSH or to a folder that is mounted here.
  - The store reads every byte again and compares it before the backup becomes visible there; only then is the staged copy removed.
  - A broken link resumes where it stopped, within a run and in the next one.
  - What one backup is refused for does not keep back the others that are staged; the module fails after them.
  - Runs on the mover.
requirements:
  - OpenSSH client, for a store behind SSH
extends_documentation_fragment:
  - vmbackup.esx.store
  - vmbackup.esx.attributes
attributes:
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  vm:
    description:
      - Name of the VM in the store.
    type: str
    required: true
  backup_id:
    description:
      - The backup to send. By default all that is staged for the VM.
    type: str
  source:
    description:
      - Root of the staging folder.
    type: path
    required: true
  rate_limit:
    description:
      - Bytes a second that may be sent. By default there is no limit.
    type: int
  retry_for:
    description:
      - Seconds without progress for which a broken link is tried again.
    type: int
    default: 300
  keep_staged:
    description:
      - Whether the staged copy stays after the store has committed it.
    type: bool
    default: false
  state_dir:
    description:
      - On a guest, the state folder that M(vmbackup.esx.file_archive) uses too. Once the store has committed an incremental, its index is kept
        there for the next one to start from, and no other run can overlap with this one.
    type: path
  adopt:
    description:
      - Whether the folder of a VM with another instance UUID may be taken over, because a restored VM took its place.
    type: bool
    default: false
author:
  - vmbackup.esx contributors (@vmbackup-esx)
"""

EXAMPLES = r"""
- name: Copy all that is staged for a VM
  vmbackup.esx.archive_copy:
    vm: web01
    source: /var/lib/vmbackup/staging
    store:
      host: store.example.org
      key_file: /etc/vmbackup/store_key
      known_hosts: /etc/vmbackup/known_hosts

- name: Copy one backup to a mounted folder, at 20 MB/s
  vmbackup.esx.archive_copy:
    vm: web01
    backup_id: 20261122T010000Z-full-7f3a
    source: /var/lib/vmbackup/staging
    rate_limit: 20000000
    store:
      path: /mnt/backup
"""

RETURN = r"""
reason:
  description: What was done and why, in one sentence.
  returned: always
  type: str
planned:
  description: Whether this is a plan of check mode.
  returned: success
  type: bool
backups:
  description: The backups that were looked at, oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    backup_id:
      description: The id.
      type: str
    state:
      description: What the store had of it before; V(refused) with a problem when it would not have it.
      type: str
      choices: [absent, partial, committed, refused]
    bytes:
      description: Size of the staged copy; 0 where there is none.
      type: int
    already_there:
      description: Bytes of an unfinished copy that the store had before.
      type: int
    bytes_sent:
      description: Bytes that were sent.
      returned: not in check mode
      type: int
    seconds:
      description: How long the copy and its verification took.
      returned: not in check mode
      type: float
    record_problem:
      description: Why the record of the copy could not be added; the backup itself is safe.
      returned: when it could not
      type: str
code:
  description: The error's code, as docs/errors.md lists it.
  returned: failure
  type: str
"""

import os
import time
from contextlib import nullcontext
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, Optional

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.readable import readable_bytes, readable_seconds
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.checksums import list_files
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.folder import StoreTree
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.layout import VmFolder
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.link import StoreLink, as_record
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.names import TREE_INDEX, is_backup_id
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.pacing import Patience, persist
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.sender import send_backup
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.ssh_link import open_link
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.guest_state import GuestState
from ansible_collections.vmbackup.esx.plugins.module_utils.core.utc import utc_text
from ansible_collections.vmbackup.esx.plugins.module_utils.glue.boundary import Params, Plan, Result, run
from ansible_collections.vmbackup.esx.plugins.module_utils.glue.store_options import store_address, store_spec

SPEC: Dict[str, Any] = {
    "vm": {"type": "str", "required": True},
    "backup_id": {"type": "str"},
    "source": {"type": "path", "required": True},
    "rate_limit": {"type": "int"},
    "retry_for": {"type": "int", "default": 300},
    "keep_staged": {"type": "bool", "default": False},
    "state_dir": {"type": "path"},
    "adopt": {"type": "bool", "default": False},
    **store_spec(),
}


def make_plan(params: Params) -> Plan:
    """Compare what is staged with what the store has."""
    link, folder = open_link(store_address(params)), VmFolder(params["source"], params["vm"])
    staged = [each for each in folder.committed_ids() if is_backup_id(each)]
    backups = [
        _compare(link, folder, each, params) for each in ([params["backup_id"]] if params["backup_id"] else staged)
    ]
    to_do = [each for each in backups if each["state"] != "committed" or each["bytes"]]
    if not to_do:
        link.close()
        return Plan(False, _nothing(params, backups), {"backups": backups})
    return Plan(
        any(each["state"] != "committed" for each in to_do) or not params["keep_staged"],
        _intention(to_do, params),
        {"backups": backups},
        apply=lambda: _apply(link, folder, backups, params),
    )


def _nothing(params: Params, backups: List[Result]) -> str:
    if backups:
        return "{} is in the store already".format(backups[0]["backup_id"])
    return "nothing is staged for {}".format(params["vm"])


def _intention(to_do: List[Result], params: Params) -> str:
    ids, where = ", ".join(each["backup_id"] for each in to_do), store_address(params)
    if not any(each["bytes"] for each in to_do):
        return "would copy {} to {} once it is staged".format(ids, where)
    missing = sum(each["bytes"] - each["already_there"] for each in to_do if each["state"] != "committed")
    return "would copy {} to {}, {} to go".format(ids, where, readable_bytes(missing))


def _compare(link: StoreLink, folder: VmFolder, backup_id: str, params: Params) -> Result:
    staged = folder.committed(backup_id)
    result = {"backup_id": backup_id, "bytes": sum(list_files(staged).values()) if staged.is_dir() else 0}
    try:
        found = persist(link, Patience(params["retry_for"]), lambda: link.size(params["vm"], backup_id))
    except VmbackupError as error:
        if params["backup_id"] or _ends_all(error):
            raise
        return {**result, "state": "refused", "already_there": 0, "problem": str(error)}
    return {**result, "state": found.state, "already_there": sum(found.sizes.values())}


def _apply(link: StoreLink, folder: VmFolder, backups: List[Result], params: Params) -> Result:
    done: List[Result] = []
    refusals: List[VmbackupError] = []
    state = GuestState(params["state_dir"], params["vm"]) if params["state_dir"] else None
    try:
        with state.locked() if state else nullcontext():
            for backup in backups:
                try:
                    done.append(_copy(link, folder, backup, params, state))
                except VmbackupError as error:
                    if _ends_all(error):
                        raise
                    refusals.append(_placed(error, folder.committed(backup["backup_id"])))
    finally:
        link.close()
    if refusals:
        first, *others = refusals
        raise VmbackupError(first.code, " ".join([*map(str, others), first.message]), first.hint)
    return {"backups": done, "reason": _outcome(done, params)}


def _ends_all(error: VmbackupError) -> bool:
    """Tell whether an error is the store's or the link's, and not one backup's own."""
    return error.code.startswith(("store_", "wire_", "put_"))


def _placed(error: VmbackupError, staged: Path) -> VmbackupError:
    """Name the staged copy that the store will never let in, since every later run meets it again."""
    if error.code != "backup_id_off_clock":
        return error
    message = "{} The staged copy {} is kept.".format(error.message, staged)
    return VmbackupError(
        error.code, message, "Set the clocks of controller and store; remove a staged copy that is over 7 days old."
    )


def _outcome(done: List[Result], params: Params) -> str:
    copied = [each for each in done if each["state"] != "committed"]
    if not copied:
        return "{} is in the store already".format(", ".join(each["backup_id"] for each in done))
    return "{} copied to {} in {}".format(
        readable_bytes(sum(each["bytes_sent"] for each in copied)),
        store_address(params),
        readable_seconds(sum(each["seconds"] for each in copied)),
    )


def _copy(link: StoreLink, folder: VmFolder, backup: Result, params: Params, state: Optional[GuestState]) -> Result:
    backup_id, started = backup["backup_id"], time.time()
    if not folder.committed(backup_id).is_dir():
        if backup["state"] == "committed":
            return {**backup, "bytes_sent": 0, "seconds": 0.0}
        raise VmbackupError(
            "staged_backup_missing",
            "{} holds no backup {} of {}.".format(params["source"], backup_id, params["vm"]),
            "Check source (vmbackup_staging_dir); in a job container, staging is lost with it: use a mover that stays.",
        )
    sent = send_backup(
        link,
        str(folder.committed(backup_id)),
        params["vm"],
        backup_id,
        rate_limit=params["rate_limit"],
        retry_for=params["retry_for"],
        adopt=params["adopt"],
    )
    result = {**backup, "bytes_sent": sent.bytes_sent, "seconds": round(sent.seconds, 3)}
    if not sent.already_there:
        result.update(_record(link, params["vm"], result, started))
    index = folder.committed(backup_id) / TREE_INDEX
    if state is not None and index.is_file():
        state.promote(backup_id, str(index))
    if not params["keep_staged"]:
        StoreTree(params["source"]).remove(params["vm"], backup_id)
    return result


def _record(link: StoreLink, vm: str, result: Result, started: float) -> Result:
    """Tell the store of this phase. The backup is committed, so a failure here is told and no more."""
    body = {
        "phase": "copy",
        "node": os.uname().nodename,
        "start": utc_text(datetime.fromtimestamp(started, timezone.utc)),
        "end": utc_text(datetime.now(timezone.utc)),
        "bytes_in": result["bytes"],
        "bytes_out": result["bytes_sent"],
    }
    try:
        link.note(vm, as_record("copy", result["backup_id"], body))
    except VmbackupError as error:
        return {} if error.code == "not_granted" else {"record_problem": str(error)}  # a guest's key may do no more
    return {}


def main() -> None:
    """Run the module."""
    run(SPEC, make_plan)


if __name__ == "__main__":
    main()
