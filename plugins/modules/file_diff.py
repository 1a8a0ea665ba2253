#!/usr/bin/python
# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: file_diff
short_description: Find what changed in the files of a guest
version_added: 1.0.0
description:
  - Compares the files of a guest with the index of an earlier backup, and tells what an incremental would save and why. Changes nothing.
  - With O(baseline), it keeps the index of the files as they are now instead, so that incrementals can stand on the full O(backup_id).
  - A file counts as changed when its size, its times, its inode, its mode or its owner differ; a time that was set back does not hide it.
  - Runs on the guest, which needs Linux and Python 3.8.
extends_documentation_fragment:
  - vmbackup.esx.files
  - vmbackup.esx.attributes
attributes:
  diff_mode:
    description: There is nothing to compare but the result itself.
    support: none
options:
  against:
    description:
      - Id of the backup to compare with. By default the newest that has an index on the guest.
    type: str
  baseline:
    description:
      - Whether to keep the index for the full O(backup_id), and compare nothing.
    type: bool
    default: false
  backup_id:
    description:
      - The full that is about to be made. Needed with O(baseline).
    type: str
author:
  - vmbackup.esx contributors (@vmbackup-esx)
"""

EXAMPLES = r"""
- name: See what changed below two folders
  vmbackup.esx.file_diff:
    vm: web01
    paths: [/etc, /srv]
    exclude: ["*.tmp", /srv/cache/]
  become: true
"""

RETURN = r"""
reason:
  description: What was found, in one sentence.
  returned: success
  type: str
planned:
  description: Whether this is a plan of check mode.
  returned: success
  type: bool
against:
  description: The backup that was compared with.
  returned: when compared
  type: str
counts:
  description: How many were created, changed, changed in metadata, linked anew and deleted.
  returned: success
  type: dict
bytes_to_save:
  description: Bytes of content that an incremental would save.
  returned: when compared
  type: int
entries:
  description: How many files and folders there are.
  returned: success
  type: int
changes:
  description: The first 1,000 changes.
  returned: when compared
  type: list
  elements: dict
  contains:
    path:
      description: The path on the guest.
      type: str
    kind:
      description: V(created), V(changed), V(metadata), V(linked) or V(deleted).
      type: str
    reason:
      description: What told it.
      type: str
more_changes:
  description: How many changes are not listed.
  returned: when compared
  type: int
left_out:
  description: What was not looked at, and why.
  returned: success
  type: list
  elements: dict
code:
  description: The error's code, as docs/errors.md lists it.
  returned: failure
  type: str
"""

import os
import tempfile
import time
from itertools import islice
from typing import Any, Dict, Optional, Tuple

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.readable import readable_bytes
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.names import parse_backup_id
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.guest_state import GuestState
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.survey import Survey, survey
from ansible_collections.vmbackup.esx.plugins.module_utils.glue.boundary import Params, Plan, Result, run
from ansible_collections.vmbackup.esx.plugins.module_utils.glue.file_options import (
    file_spec,
    left_out_of,
    scan_rules,
    shown_path,
    take_priority,
)

MOST_CHANGES = 1000

SPEC: Dict[str, Any] = {
    **file_spec(),
    "against": {"type": "str"},
    "baseline": {"type": "bool", "default": False},
    "backup_id": {"type": "str"},
}


def make_plan(params: Params) -> Plan:
    """Compare now; a baseline is planned."""
    take_priority(params)
    if params["baseline"]:
        parse_backup_id(params["backup_id"])
        reason = "would index the files below {}".format(", ".join(params["paths"]))
        return Plan(True, reason, {"backup_id": params["backup_id"]}, apply=lambda: _keep_baseline(params))
    against, index = _index(GuestState(params["state_dir"], params["vm"]), params)
    with tempfile.TemporaryDirectory(prefix="vmbackup-", dir=os.environ.get("TMPDIR") or "/var/tmp") as scratch:
        found = _survey(params, index, scratch)
        result = _told(found, against)
    reason = "{} to save since {}, {} deleted".format(
        readable_bytes(found.bytes_to_save), against, found.counts["deleted"]
    )
    return Plan(False, reason, result)


def _keep_baseline(params: Params) -> Result:
    state = GuestState(params["state_dir"], params["vm"])
    with state.locked():
        scratch = state.scratch()
        found = _survey(params, None, scratch, baseline=True)
        state.keep_pending(params["backup_id"], os.path.join(scratch, "tree.idx"))
    return {
        "counts": found.counts,
        "entries": found.entries,
        "left_out": left_out_of(found),
        "reason": "indexed {} files and folders".format(found.entries),
    }


def _survey(params: Params, index: Optional[str], scratch: str, *, baseline: bool = False) -> Survey:
    return survey(
        scan_rules(params),
        index,
        os.path.join(scratch, "tree.idx"),
        os.path.join(scratch, "changes"),
        {"vm": params["vm"], "backup_id": params["backup_id"] or ""},
        time.time_ns(),
        baseline,
    )


def _index(state: GuestState, params: Params) -> Tuple[str, str]:
    """Return the backup to compare with, and the path of its index; raises full_due."""
    indexes = state.indexes()
    wanted = params["against"] or max(indexes, key=lambda each: parse_backup_id(each).time, default="")
    if wanted not in indexes:
        raise VmbackupError(
            "full_due",
            "This guest has no index of {}.".format(wanted or "any backup of {}".format(params["vm"])),
            "Run full_backup, which takes the baseline; or set state_dir and against to what is there: {}.".format(
                ", ".join(sorted(indexes)) or "nothing"
            ),
        )
    return wanted, indexes[wanted]


def _told(found: Survey, against: str) -> Result:
    shown = [
        {"path": shown_path(each.path), "kind": each.kind, "reason": each.reason}
        for each in islice(found.changes(), MOST_CHANGES)
    ]
    return {
        "against": against,
        "counts": found.counts,
        "entries": found.entries,
        "bytes_to_save": found.bytes_to_save,
        "changes": shown,
        "more_changes": sum(found.counts.values()) - len(shown),
        "left_out": left_out_of(found),
    }


def main() -> None:
    """Run the module."""
    run(SPEC, make_plan, required_if=[("baseline", True, ["backup_id"])])


if __name__ == "__main__":
    main()
