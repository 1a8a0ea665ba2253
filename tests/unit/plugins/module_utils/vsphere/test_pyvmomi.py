# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node without pyVmomi or requests."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# As a module does it on such a node: everything is imported, then a session is opened.
SCRIPT = """
import sys
sys.modules[sys.argv[1]] = None
from ansible_collections.vmbackup.esx.plugins.modules import vm_archive, vm_snapshot
from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.session import Connection, Session
try:
    Session.open(Connection("esx1.example.org", "root", "secret"))
except VmbackupError as error:
    sys.stdout.write("{} | {} | {}".format(error.code, error, error.hint))
"""


@pytest.mark.parametrize("library", ["pyVmomi", "requests"])
def test_a_node_without_a_library_says_which_is_missing(library: str) -> None:
    env = {**os.environ, "PYTHONPATH": os.environ["ANSIBLE_COLLECTIONS_PATH"]}
    argv = [sys.executable, "-c", SCRIPT, library]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    code, message, hint = done.stdout.split(" | ")
    assert code == "missing_library"
    assert library.lower() in message
    assert "install" in hint
