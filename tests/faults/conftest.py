# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as fixtures: one for a test run, with VMs made for each test; `ground` for many VMs with a fault each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.fixtures import Played, fresh_vm, lab, play
from tests.lab.site import LabSite

from .ground import Ground

__all__ = ["fresh_vm", "lab", "play"]


@pytest.fixture
def ground(lab: LabSite, play: Callable[..., Played], tmp_path: Path) -> Iterator[Ground]:
    """Return the machines of one test; gone after it."""
    made = Ground(lab, play, tmp_path)
    yield made
    made.clear()
