# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure packing against its peers, and how long a snapshot stays open: `python -m tests.bench [ROUNDS]`.

Writes the tables into docs/performance.md.
"""

from __future__ import annotations

import sys

from . import pack, snapshot

if __name__ == "__main__":
    pack.main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    snapshot.main()
