# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names in the store: backup ids, folders of VMs, files of a backup.

Invariant: a name that passed here is one plain path component; nothing from outside reaches a path unchecked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from urllib.parse import quote, unquote

from ..errors import VmbackupError

KINDS = ("full", "incremental")
ARCHIVE = "archive.tar.gz"
TREE_INDEX = "tree.idx"
MANIFEST = "manifest.json"
RECOVER = "RECOVER.txt"
SUMS = "SHA256SUMS"
INCOMING = ".incoming"
RECORDS = ".records"

_STAMP = "%Y%m%dT%H%M%SZ"
_ID = re.compile(r"([0-9]{8}T[0-9]{6}Z)-(full|incremental)-([0-9a-f]{4,16})")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._]{0,63}")
_LONGEST_COMPONENT = 255


@dataclass(frozen=True)
class BackupId:
    """The parts of a backup's id. time: aware, UTC."""

    time: datetime
    kind: str
    suffix: str

    def __str__(self) -> str:
        return new_backup_id(self.time, self.kind, self.suffix)


def new_backup_id(now: datetime, kind: str, suffix: str) -> str:
    """Make a backup's id.

    now: aware. kind: full or incremental. suffix: 4 to 16 random hexadecimal digits. Raises backup_id_invalid.
    """
    made = "{}-{}-{}".format(now.astimezone(timezone.utc).strftime(_STAMP), kind, suffix)
    parse_backup_id(made)
    return made


def parse_backup_id(backup_id: str) -> BackupId:
    """Take an id apart; raises backup_id_invalid for anything that new_backup_id would not have made."""
    match = _ID.fullmatch(backup_id) if isinstance(backup_id, str) else None
    try:
        if match is None:
            raise ValueError
        time = datetime.strptime(match.group(1), _STAMP).replace(tzinfo=timezone.utc)
    except ValueError:
        raise VmbackupError(
            "backup_id_invalid",
            "{!r} is not the id of a backup.".format(str(backup_id)[:80]),
            "An id looks like 20261122T010000Z-full-7f3a.",
        ) from None
    return BackupId(time, match.group(2), match.group(3))


def is_backup_id(text: str) -> bool:
    """Tell whether this is the id of a backup."""
    try:
        parse_backup_id(text)
    except VmbackupError:
        return False
    return True


def folder_name(vm: str) -> str:
    """Return the folder of a VM: its name, percent-encoded; reversible by vm_name. Raises vm_name_invalid."""
    encoded = quote(vm, safe="", errors="surrogateescape") if isinstance(vm, str) else ""
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    if not encoded or len(encoded) > _LONGEST_COMPONENT:
        raise VmbackupError(
            "vm_name_invalid",
            "The VM's name {!r} cannot name a folder: it is empty or too long.".format(str(vm)[:80]),
            "Give the VM a shorter inventory name.",
        )
    return encoded


def vm_name(folder: str) -> str:
    """Return the VM whose folder this is; raises vm_name_invalid for a folder that folder_name would not have made."""
    vm = unquote(folder, errors="surrogateescape")
    if not vm or folder_name(vm) != folder:
        raise VmbackupError("vm_name_invalid", "The folder {!r} is not a VM's folder.".format(folder[:80]))
    return vm


def plain_file_name(name: str) -> str:
    """Return the name of a backup's file unchanged; raises file_name_invalid unless it is one plain component."""
    if not isinstance(name, str) or not _FILE.fullmatch(name):
        raise VmbackupError("file_name_invalid", "{!r} cannot name a file of a backup.".format(str(name)[:80]))
    return name


def key_name(name: str) -> str:
    """Return the name of a store's key unchanged; raises policy_invalid unless it is a plain word."""
    if not isinstance(name, str) or not _KEY.fullmatch(name):
        raise VmbackupError(
            "policy_invalid",
            "{!r} cannot name a key of the store.".format(str(name)[:80]),
            "Use up to 64 letters, digits, dots and underscores.",
        )
    return name
