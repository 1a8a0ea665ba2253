# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quantities as people read them, in every sentence that a module answers.

Invariant: results for programs keep plain numbers; only sentences go through here.
"""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def readable_bytes(size: int) -> str:
    """Return a number of bytes with the largest unit that leaves at least 1, such as "48.2 MiB" or "512 B"."""
    amount, unit = float(size), 0
    while round(amount, 1) >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return "{} B".format(size) if unit == 0 else "{:.1f} {}".format(amount, _UNITS[unit])


def readable_seconds(seconds: float) -> str:
    """Return a span of time with two units at most, such as "0.4 s", "12 s", "3 min 5 s" or "2 h 10 min"."""
    if seconds < 9.95:
        return "{:.1f} s".format(seconds)
    whole = int(seconds + 0.5)
    if whole < 60:
        return "{} s".format(whole)
    if whole < 3600:
        return "{} min {} s".format(*divmod(whole, 60))
    return "{} h {} min".format(*divmod(whole // 60, 60))
