#!/usr/bin/python
# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: store_receiver
short_description: Install the receiver of a store
version_added: 1.0.0
description:
  - Builds the program that sshd starts on the store for each key, from the sources of this collection, and installs it as one file.
  - Equal sources give equal bytes, so a second run changes nothing.
  - Runs on the store. The role P(vmbackup.esx.store#role) uses it.
extends_documentation_fragment:
  - vmbackup.esx.attributes
attributes:
  diff_mode:
    description: Shows the digests.
    support: full
options:
  path:
    description:
      - Where the receiver is installed. Its folder must exist.
    type: path
    required: true
author:
  - vmbackup.esx contributors (@vmbackup-esx)
"""

EXAMPLES = r"""
- name: Install the receiver
  vmbackup.esx.store_receiver:
    path: /usr/local/lib/vmbackup/receiver.pyz
  become: true
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
path:
  description: Where the receiver is.
  returned: success
  type: str
sha256:
  description: Digest of the receiver.
  returned: success
  type: str
code:
  description: The error's code, as docs/errors.md lists it.
  returned: failure
  type: str
"""

import hashlib
from pathlib import Path
from typing import Any, Dict

from ansible_collections.vmbackup.esx.plugins.module_utils.core.store import durable, zipapp_builder
from ansible_collections.vmbackup.esx.plugins.module_utils.glue.boundary import Params, Plan, Result, run

SPEC: Dict[str, Any] = {"path": {"type": "path", "required": True}}
MODE = 0o644


def make_plan(params: Params) -> Plan:
    """Compare the installed receiver with the one that these sources make."""
    path, program = Path(params["path"]), zipapp_builder.build_receiver()
    digest = hashlib.sha256(program).hexdigest()
    result = {"path": str(path), "sha256": digest}
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    if found == digest and path.stat().st_mode & 0o7777 == MODE:
        return Plan(False, "the receiver is up to date", result)
    reason = "the receiver is {}".format("of another version or mode" if found else "not there")
    return Plan(True, reason, result, found, digest, lambda: _install(path, program))


def _install(path: Path, program: bytes) -> Result:
    try:
        durable.write_durably(str(path), program, MODE)
    except OSError as error:
        raise durable.store_error(error, str(path)) from error
    return {}


def main() -> None:
    """Run the module."""
    run(SPEC, make_plan)


if __name__ == "__main__":
    main()
