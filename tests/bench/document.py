# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/performance.md: each table stands between two marks of its own, and the text around them is people's."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".build" / "bench"
DOCUMENT = ROOT / "docs" / "performance.md"


def write_table(name: str, table: str) -> None:
    """Put a table between the marks of its name; at the end where there are none."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = DOCUMENT.read_text() if DOCUMENT.exists() else "# Performance\n"
    if begin not in text:
        text = f"{text}\n{begin}\n{end}\n"
    before, _begin, rest = text.partition(begin)
    _old, _end, after = rest.partition(end)
    DOCUMENT.write_text(f"{before}{begin}\n{table}\n{end}{after}")
