# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step aside for the guest's users: the lowest priority for CPU and disk.

Invariant: called before threads are started, which inherit it; a system that refuses is no failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess

_IDLE = "3"  # ionice(1): the class that gets the disk only when nobody else wants it


def step_aside() -> None:
    """Take the lowest priority for this process and all that it starts from now on."""
    os.nice(19)
    ionice = shutil.which("ionice")
    if ionice:
        subprocess.run([ionice, "-c", _IDLE, "-p", str(os.getpid())], check=False, stderr=subprocess.DEVNULL)
