# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints the main environment as shell exports, for `make` and for people: eval "$(python3 -m tests.ci.exports)"."""

from __future__ import annotations

import shlex

from .places import environment

NAMES = ("PATH", "ANSIBLE_COLLECTIONS_PATH", "PYTHONDONTWRITEBYTECODE", "LC_ALL")

if __name__ == "__main__":
    values = environment()
    for name in NAMES:
        print(f"export {name}={shlex.quote(values[name])}")
