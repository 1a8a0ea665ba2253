# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure packing and scanning against their peers, and how long a snapshot stays open: `python -m tests.bench [ROUNDS]`.

Writes the tables into docs/performance.md.
"""

from __future__ import annotations

import sys

from . import pack, scan, snapshot

if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    pack.main(rounds)
    scan.main(rounds)
    snapshot.main()
