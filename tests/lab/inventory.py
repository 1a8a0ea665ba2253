# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's inventory, as a folder that Ansible reads: hosts.yml, group_vars, and one file for each guest."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


class Inventory:
    """Writes the folder; guests come and go while the lab runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "group_vars").mkdir(parents=True, exist_ok=True)

    def write_hosts(self, esx_hosts: list[str], store: Mapping[str, Any]) -> None:
        """Write who is there before any guest. store: the variables of the store's host."""
        # An explicit localhost loses the environment's Python unless it is named.
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        groups = {
            "esx_hosts": {"hosts": dict.fromkeys(esx_hosts)},
            "guests": {"hosts": {}},
            "backup_store": {"hosts": {"store": dict(store)}},
        }
        self._write("hosts.yml", {"all": {"hosts": {"localhost": local}, "children": groups}})

    def write_group(self, group: str, variables: Mapping[str, Any]) -> None:
        self._write(f"group_vars/{group}.yml", dict(variables))

    def add_guest(self, name: str, variables: Mapping[str, Any]) -> None:
        """Add or change a guest; its name may be anything that a VM's may."""
        self._write(self._guest_file(name), {"guests": {"hosts": {name: dict(variables)}}})

    def remove_guest(self, name: str) -> None:
        (self.folder / self._guest_file(name)).unlink(missing_ok=True)

    def _guest_file(self, name: str) -> str:
        return f"guest-{hashlib.sha256(name.encode()).hexdigest()[:12]}.yml"

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        target = self.folder / name
        # Ansible reads *.yml only, and may read while this writes.
        draft = target.with_suffix(".new~")
        draft.write_text(yaml.safe_dump(dict(content), allow_unicode=True, sort_keys=False))
        os.replace(draft, target)
