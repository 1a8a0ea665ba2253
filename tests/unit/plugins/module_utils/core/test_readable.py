# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quantities for people."""

from __future__ import annotations

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.readable import readable_bytes, readable_seconds


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (50_541_363, "48.2 MiB"), ((1 << 20) - 1, "1.0 MiB"),
     (1 << 30, "1.0 GiB"), (3 << 40, "3.0 TiB"), (5000 << 40, "5000.0 TiB")],
)  # fmt: skip
def test_bytes_have_the_unit_that_says_something(size: int, text: str) -> None:
    assert readable_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (0.44, "0.4 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")],
)
def test_spans_of_time_have_two_units_at_most(seconds: float, text: str) -> None:
    assert readable_seconds(seconds) == text
