# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Receivers in processes of their own, as sshd starts them, and links to them without SSH."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.link import StoreAddress
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.ssh_link import blame
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.wire_link import WireLink
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.zipapp_builder import build_receiver


def told(code: int | None, words: str, greeted: bool) -> VmbackupError:
    """Blame a child process as the ssh that it stands for."""
    return blame(StoreAddress(host="store"), code, words, greeted)


def receiver(folder: Path, root: Path, **grant: Any) -> WireLink:
    """Return a link to the product's receiver over a store in `root`; its program and policy lie in `folder`."""
    rights = {"vms": ["*"], "kinds": ["full", "incremental"], "notes": ["copy", "failed"], **grant}
    policy, program = folder / "policy.json", folder / "receiver.pyz"
    policy.write_text(json.dumps({"format": 1, "root": str(root), "keys": {"mover": rights}}))
    program.write_bytes(build_receiver())
    return WireLink([sys.executable, "-I", str(program), "--policy", str(policy), "--key", "mover"], told)
