#!/usr/bin/python
# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_note
short_description: Add a record on a VM's backups to the store
version_added: 1.0.0
description:
  - Adds a note, such as one of a failed run, to the records of a VM in the store. Records are never changed.
  - Each run adds one, so it always reports a change.
extends_documentation_fragment:
  - vmbackup.esx.store
  - vmbackup.esx.attributes
attributes:
  diff_mode:
    description: Shows the record.
    support: full
options:
  vm:
    description:
      - Name of the VM in the store.
    type: str
    required: true
  backup_id:
    description:
      - The backup that the note is about, if it is about one.
    type: str
  kind:
    description:
      - What kind of note it is.
    type: str
    choices: [copy, failed, usage]
    default: failed
  text:
    description:
      - What happened, for people. It is cut at 4,000 characters.
    type: str
    default: ""
  data:
    description:
      - What happened, for programs.
    type: dict
    default: {}
author:
  - vmbackup.esx contributors (@vmbackup-esx)
"""

EXAMPLES = r"""
- name: Note a failed run
  vmbackup.esx.backup_note:
    vm: web01
    kind: failed
    text: The snapshot could not be taken.
    store:
      host: store.example.org
      key_file: /etc/vmbackup/store_key
      known_hosts: /etc/vmbackup/known_hosts
"""

RETURN = r"""
reason:
  description: What was done, in one sentence.
  returned: always
  type: str
planned:
  description: Whether this is a plan of check mode.
  returned: success
  type: bool
record:
  description: The record.
  returned: success
  type: dict
code:
  description: The error's code, as docs/errors.md lists it.
  returned: failure
  type: str
"""

from typing import Any, Dict

from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.link import as_record
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.names import folder_name, parse_backup_id
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.ssh_link import open_link
from ansible_collections.vmbackup.esx.plugins.module_utils.glue.boundary import Params, Plan, Result, run
from ansible_collections.vmbackup.esx.plugins.module_utils.glue.store_options import store_address, store_spec

LONGEST_TEXT = 4000

SPEC: Dict[str, Any] = {
    "vm": {"type": "str", "required": True},
    "backup_id": {"type": "str"},
    "kind": {"type": "str", "choices": ["copy", "failed", "usage"], "default": "failed"},
    "text": {"type": "str", "default": ""},
    "data": {"type": "dict", "default": {}},
    **store_spec(),
}


def make_plan(params: Params) -> Plan:
    """Plan one more record."""
    folder_name(params["vm"])
    if params["backup_id"]:
        parse_backup_id(params["backup_id"])
    body = {"message": params["text"][:LONGEST_TEXT], "data": params["data"]}
    record = as_record(params["kind"], params["backup_id"] or None, body)
    return Plan(
        True,
        "one record of the kind {} for {}".format(params["kind"], params["vm"]),
        {"record": record},
        after=record,
        apply=lambda: _add(params, record),
    )


def _add(params: Params, record: Result) -> Result:
    link = open_link(store_address(params))
    try:
        link.note(params["vm"], record)
    finally:
        link.close()
    return {}


def main() -> None:
    """Run the module."""
    run(SPEC, make_plan)


if __name__ == "__main__":
    main()
