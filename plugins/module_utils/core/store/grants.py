# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a key may do: the policy file of a store, read strictly.

Invariant: what the policy does not say is not allowed; an entry that is not understood stops the receiver.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Dict, FrozenSet, Optional, Tuple

from ..errors import VmbackupError
from .names import KINDS, folder_name, key_name
from .records import WIRE_KINDS

EVERY_VM = "*"
_ENTRIES = {"vms": list, "kinds": list, "notes": list, "adopt": bool, "quota_bytes": int, "in_flight_bytes": int}


@dataclass(frozen=True)
class Grant:
    """The rights of one key. quota_bytes, in_flight_bytes: 0 means no limit."""

    key: str
    vms: FrozenSet[str] = frozenset()
    kinds: FrozenSet[str] = frozenset()
    notes: FrozenSet[str] = frozenset()
    adopt: bool = False
    quota_bytes: int = 0
    in_flight_bytes: int = 0

    @classmethod
    def everything(cls, key: str) -> Grant:
        """Return the rights of whoever owns the folder anyway."""
        return cls(key, frozenset((EVERY_VM,)), frozenset(KINDS), frozenset(WIRE_KINDS), True)

    def require_vm(self, vm: str) -> None:
        """Raise not_granted unless the VM is in this key's list."""
        if EVERY_VM not in self.vms and vm not in self.vms:
            raise self._refusal("touch the VM {!r}".format(vm[:80]))

    def require_kind(self, kind: str) -> None:
        """Raise not_granted unless this key may add backups of a kind."""
        if kind not in self.kinds:
            raise self._refusal("add {} backups".format(kind))

    def require_note(self, kind: str) -> None:
        """Raise not_granted unless this key may add records of a kind."""
        if kind not in self.notes:
            raise self._refusal("add records of the kind {!r}".format(kind[:40]))

    def require_adopt(self) -> None:
        """Raise not_granted unless this key may hand a folder over to another machine."""
        if not self.adopt:
            raise self._refusal("adopt the folder of another VM")

    def _refusal(self, what: str) -> VmbackupError:
        return VmbackupError(
            "not_granted",
            "The store does not let the key {} {}.".format(self.key, what),
            "Change the key's entry in vmbackup_store_keys and run the role store.",
        )


def load_policy(path: str, key: str) -> Tuple[str, Grant]:
    """Return (root folder, rights of `key`) from a policy file; raises policy_invalid, not_granted."""
    try:
        document = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise _invalid(path, "cannot be read: {}".format(error)) from None
    grants = check_policy(path, document)
    if key not in grants:
        raise VmbackupError(
            "not_granted", "The store's policy has no key {!r}.".format(key), "Run the role store again, with this key."
        )
    return document["root"], grants[key]


def check_policy(path: str, document: Any) -> Dict[str, Grant]:
    """Return the rights of every key of a policy; raises policy_invalid. path: for the message."""
    if not isinstance(document, dict) or set(document) != {"format", "root", "keys"} or document["format"] != 1:
        raise _invalid(path, "must hold format 1, root and keys, and nothing else")
    root, keys = document["root"], document["keys"]
    if not isinstance(root, str) or not root.startswith("/") or not isinstance(keys, dict):
        raise _invalid(path, "must have an absolute root and an object of keys")
    return {name: _grant(path, key_name(name), entry) for name, entry in keys.items()}


def _grant(path: str, name: str, entry: Any) -> Grant:
    known = {field.name for field in fields(Grant)} - {"key"}
    if isinstance(entry, dict):
        entry = {option: value for option, value in entry.items() if option != "login"}  # enrolment's part
    if not isinstance(entry, dict) or set(entry) - known:
        raise _invalid(path, "key {} may have {} only".format(name, ", ".join(sorted(known))))
    values: Dict[str, Any] = {}
    for option, value in entry.items():
        if not _is_of(value, _ENTRIES[option]):
            raise _invalid(path, "{} of key {} must be of type {}".format(option, name, _ENTRIES[option].__name__))
        values[option] = frozenset(value) if isinstance(value, list) and _texts(value) else value
    grant = Grant(name, **values)
    complaint = _complaint(grant)
    if complaint:
        raise _invalid(path, "key {}: {}".format(name, complaint))
    return grant


def _is_of(value: Any, kind: type) -> bool:
    """Tell whether a value is of a kind; JSON's true and false are no numbers."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _texts(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _complaint(grant: Grant) -> Optional[str]:
    if not all(isinstance(value, frozenset) for value in (grant.vms, grant.kinds, grant.notes)):
        return "vms, kinds and notes are lists of strings"
    if grant.kinds - set(KINDS):
        return "kinds are {}".format(", ".join(KINDS))
    if grant.notes - set(WIRE_KINDS):
        return "notes are {}; others are the store's own".format(", ".join(WIRE_KINDS))
    if grant.quota_bytes < 0 or grant.in_flight_bytes < 0:
        return "limits are 0 (none) or more"
    for vm in grant.vms - {EVERY_VM}:
        folder_name(vm)
    return None


def _invalid(path: str, complaint: str) -> VmbackupError:
    return VmbackupError(
        "policy_invalid", "The store's policy {}: {}.".format(path, complaint), "Let the role store write it."
    )
