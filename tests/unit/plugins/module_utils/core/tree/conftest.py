# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders for trees that pytest's own cleaning cannot remove: too deep, or of another owner."""

from __future__ import annotations

import os
import subprocess
import tempfile

import pytest


@pytest.fixture
def folder():
    made = os.fsencode(tempfile.mkdtemp(prefix="vmbackup-tree-"))
    os.chmod(made, 0o755)
    yield made
    subprocess.run(["rm", "-rf", made], check=True)


@pytest.fixture
def ground(folder):
    from .ground import Ground

    return Ground(folder)


@pytest.fixture
def packer(tmp_path):
    from .packing import Packer

    return Packer(tmp_path)
