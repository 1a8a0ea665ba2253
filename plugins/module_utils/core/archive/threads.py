# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many threads pack and check."""

from __future__ import annotations

import os

_MAX_THREADS = 4  # more gain little: reading and writing set the pace, and a mover has other work


def default_threads() -> int:
    """Return one thread per core that this process may use, up to 4."""
    return min(len(os.sched_getaffinity(0)), _MAX_THREADS)
