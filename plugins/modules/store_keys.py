#!/usr/bin/python
# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: store_keys
short_description: Say who may add backups to a store
version_added: 1.0.0
description:
  - Writes the store's policy, and the C(authorized_keys) that follow from it, with one forced command for each key.
  - Both are written whole under a lock, so that guests may be enrolled in parallel.
  - Keys of the inventory (O(keys)) and keys of guests (O(guest)) never replace one another.
  - No key can read, change or delete a backup.
  - Runs on the store. The role P(vmbackup.esx.store#role) uses it.
extends_documentation_fragment:
  - vmbackup.esx.attributes
attributes:
  diff_mode:
    description: Shows the policy before and after.
    support: full
options:
  root:
    description:
      - Root folder of the backups.
    type: str
    required: true
  python:
    description:
      - Python 3.8 or newer on the store, for the receiver.
    type: str
    required: true
  receiver:
    description:
      - The receiver, as M(vmbackup.esx.store_receiver) installs it.
    type: str
    required: true
  policy_file:
    description:
      - The file that says what each key may do.
    type: str
    required: true
  authorized_keys:
    description:
      - The file by which sshd knows the keys.
    type: str
    required: true
  keys:
    description:
      - The keys of the inventory, all of them. What was there before and is not in the list is removed, guests excepted.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Name of the key, of letters, digits, dots and underscores; not one that begins with C(guest.).
        type: str
        required: true
      public_key:
        description:
          - The public key, as in its C(.pub) file.
        type: str
        required: true
      vms:
        description:
          - Names of the VMs, or V(*) for all.
        type: list
        elements: str
        required: true
      kinds:
        description:
          - Kinds of backups that may be added.
        type: list
        elements: str
        choices: [full, incremental]
        default: [full, incremental]
      notes:
        description:
          - Kinds of records that may be added.
        type: list
        elements: str
        choices: [copy, failed, usage]
        default: [copy, failed, usage]
      adopt:
        description:
          - Whether the folder of a VM may be handed over to a machine with another instance UUID.
        type: bool
        default: false
      quota_bytes:
        description:
          - Bytes that this key may keep in the store; 0 means no limit.
        type: int
        default: 0
      in_flight_bytes:
        description:
          - Bytes that may be under way and not committed; 0 means no limit.
        type: int
        default: 0
      from:
        description:
          - Addresses that this key may come from, as sshd's C(from) takes them.
        type: str
        default: ""
  guest:
    description:
      - One guest's own key. It adds incrementals of its VM and may do nothing else.
    type: dict
    suboptions:
      vm:
        description:
          - Name of the VM in the store.
        type: str
        required: true
      public_key:
        description:
          - The guest's public key. Not needed with O(state=absent).
        type: str
        default: ""
      quota_bytes:
        description:
          - Bytes that the guest may keep in the store; 0 means no limit.
        type: int
        default: 0
      in_flight_bytes:
        description:
          - Bytes that may be under way and not committed; 0 means no limit.
        type: int
        default: 0
      from:
        description:
          - Addresses that the guest may come from, as sshd's C(from) takes them.
        type: str
        default: ""
  state:
    description:
      - Whether the key of O(guest) may log in.
    type: str
    choices: [present, absent]
    default: present
author:
  - vmbackup.esx contributors (@vmbackup-esx)
"""

EXAMPLES = r"""
- name: Let a guest add incrementals of itself
  vmbackup.esx.store_keys:
    root: /srv/vmbackup
    python: /usr/bin/python3
    receiver: /usr/local/lib/vmbackup/receiver.pyz
    policy_file: /etc/vmbackup/store_policy.json
    authorized_keys: /var/lib/vmbackup-store/.ssh/authorized_keys
    guest:
      vm: web01
      public_key: ssh-ed25519 AAAA... root@web01
      quota_bytes: 50000000000
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
names:
  description: The names of all keys that may log in.
  returned: success
  type: list
  elements: str
code:
  description: The error's code, as docs/errors.md lists it.
  returned: failure
  type: str
"""

from typing import Any, Callable, Dict

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.enrolment import (
    LOGIN,
    Document,
    StoreDoor,
    differing,
    enrol,
    read_document,
    rendered,
    with_guest,
    with_inventory_keys,
    without_guest,
)
from ansible_collections.vmbackup.esx.plugins.module_utils.glue.boundary import Params, Plan, Result, run

_LIMITS: Dict[str, Any] = {
    "quota_bytes": {"type": "int", "default": 0},
    "in_flight_bytes": {"type": "int", "default": 0},
    "from": {"type": "str", "default": ""},
}
_KEY: Dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "public_key": {"type": "str", "required": True, "no_log": False},
    "vms": {"type": "list", "elements": "str", "required": True},
    "kinds": {
        "type": "list",
        "elements": "str",
        "choices": ["full", "incremental"],
        "default": ["full", "incremental"],
    },
    "notes": {
        "type": "list",
        "elements": "str",
        "choices": ["copy", "failed", "usage"],
        "default": ["copy", "failed", "usage"],
    },
    "adopt": {"type": "bool", "default": False},
    **_LIMITS,
}
_GUEST: Dict[str, Any] = {
    "vm": {"type": "str", "required": True},
    "public_key": {"type": "str", "default": "", "no_log": False},
    **_LIMITS,
}
SPEC: Dict[str, Any] = {
    **{
        name: {"type": "str", "required": True, "no_log": False}  # paths; authorized_keys are public, too
        for name in ("root", "python", "receiver", "policy_file", "authorized_keys")
    },
    "keys": {"type": "list", "elements": "dict", "options": _KEY, "no_log": False},
    "guest": {"type": "dict", "options": _GUEST},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def make_plan(params: Params) -> Plan:
    """Compare the policy and the keys that stand with those that are wanted."""
    door = StoreDoor(*(params[name] for name in ("root", "python", "receiver", "policy_file", "authorized_keys")))
    change = change_of(params)
    before = read_document(door)
    after = change(before)
    changed = differing(rendered(door, after))
    return Plan(
        bool(changed),
        "{} to be written".format(" and ".join(changed)) if changed else "policy and keys stand as wanted",
        {"names": sorted(after["keys"])},
        before,
        after,
        (lambda: _enrol(door, change)) if changed else None,
    )


def change_of(params: Params) -> Callable[[Document], Document]:
    """Return what the options do to the policy."""
    guest = params["guest"]
    if guest is None:
        entries = {each["name"]: _entry(each) for each in params["keys"]}
        if len(entries) < len(params["keys"]):
            raise VmbackupError("policy_invalid", "Two keys of the store have one name.", "Rename one of them.")
        return lambda document: with_inventory_keys(document, entries)
    if params["state"] == "absent":
        return lambda document: without_guest(document, guest["vm"])
    login = {"public_key": guest["public_key"].strip(), "from": guest["from"]}
    limits = {name: guest[name] for name in ("quota_bytes", "in_flight_bytes")}
    return lambda document: with_guest(document, guest["vm"], login, limits)


def _entry(key: Params) -> Result:
    """Return a key's entry in the policy."""
    rights = {name: key[name] for name in ("vms", "kinds", "notes", "adopt", "quota_bytes", "in_flight_bytes")}
    return {**rights, LOGIN: {"public_key": key["public_key"].strip(), "from": key["from"]}}


def _enrol(door: StoreDoor, change: Callable[[Document], Document]) -> Result:
    enrol(door, change)
    return {"reason": "policy and keys written"}


def main() -> None:
    """Run the module."""
    run(SPEC, make_plan, mutually_exclusive=[("keys", "guest")], required_one_of=[("keys", "guest")])


if __name__ == "__main__":
    main()
