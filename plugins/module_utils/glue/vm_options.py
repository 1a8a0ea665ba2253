# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of every module that works on a VM: connection, choice of the VM, identity of the run, policy.

Invariant: specification and conversion stand side by side; plugins/doc_fragments/vm.py documents the same options.
"""

from __future__ import annotations

from typing import Any, Dict

from ansible_collections.vmware.vmware.plugins.module_utils.argument_spec import base_argument_spec

from ..core.errors import VmbackupError
from ..core.vm.coverage import CoveragePolicy
from .boundary import Params

QUIESCE = ("required", "preferred", "never")
TRANSPORTS = ("auto", "datastore")


def vm_argument_spec() -> Dict[str, Any]:
    """Return the specification of all options that modules on a VM share."""
    return {
        **base_argument_spec(),
        "vm": {"type": "str", "required": True},
        "vm_name": {"type": "str"},
        "vm_uuid": {"type": "str"},
        "vm_folder": {"type": "str"},
        "vm_moid": {"type": "str"},
        "backup_id": {"type": "str"},
        "controller_id": {"type": "str", "required": True},
        "run": {"type": "str", "default": ""},
        "lock_dir": {"type": "path", "default": "~/.vmbackup/locks"},
        "mover_is_local": {"type": "bool", "default": False},
        "quiesce": {"type": "str", "choices": list(QUIESCE), "default": "preferred"},
        "allow": {"type": "list", "elements": "str", "default": []},
        "exclude_disks": {"type": "list", "elements": "str", "default": []},
        "transport": {"type": "str", "choices": list(TRANSPORTS), "default": "auto"},
        "task_timeout": {"type": "int", "default": 900},
    }


def connection_values(params: Params) -> Dict[str, Any]:
    """Return the arguments of vsphere's Connection; raises connection_incomplete."""
    names = ("hostname", "username", "password", "port", "validate_certs", "proxy_host", "proxy_port")
    missing = [name for name in names[:3] if not params[name]]
    if missing:
        raise VmbackupError(
            "connection_incomplete",
            "The connection to the ESX host or vCenter lacks {}".format(", ".join(missing)),
            "set {} or the environment variables VMWARE_HOST, VMWARE_USER, VMWARE_PASSWORD".format(", ".join(missing)),
        )
    return {**{name: params[name] for name in names[:5]}, **{name: params[name] or None for name in names[5:]}}


def selector_values(params: Params) -> Dict[str, Any]:
    """Return the arguments of vsphere's VmSelector."""
    return {
        "name": params["vm_name"] or params["vm"],
        "uuid": params["vm_uuid"] or None,
        "folder": params["vm_folder"] or None,
        "moid": params["vm_moid"] or None,
    }


def coverage_policy(params: Params) -> CoveragePolicy:
    """Return what this backup may miss."""
    return CoveragePolicy(frozenset(params["allow"]), frozenset(params["exclude_disks"]))


def required_backup_id(params: Params) -> str:
    """Return the option backup_id; raises backup_id_missing."""
    if not params["backup_id"]:
        raise VmbackupError(
            "backup_id_missing",
            "The backup of {} has no id".format(params["vm"]),
            "set backup_id, such as 20261122T010000Z-full-7f3a; all modules of one backup take the same",
        )
    return str(params["backup_id"])
