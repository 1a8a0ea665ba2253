# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One survey in a process of its own, as a module makes it: `scan_alone.py TREE OLD_INDEX|- NEW_INDEX`."""

from __future__ import annotations

import os
import sys
import time

from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.rules import ScanRules
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.survey import survey

if __name__ == "__main__":
    tree, old, new = sys.argv[1:]
    found = survey(
        ScanRules((tree,)),
        None if old == "-" else old,
        new,
        new + ".changes",
        {"vm": "bench", "backup_id": ""},
        time.time_ns(),
        baseline=old == "-",
    )
    if any(found.counts.values()):
        raise SystemExit(f"nothing was to be found, this was: {found.counts}")
    if old != "-":
        os.unlink(new)  # the old one stays for the next round
