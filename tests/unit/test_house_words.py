# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ansible-test refuses only after minutes, told here at once."""

from __future__ import annotations

import ast

import pytest

from tests.unit.sources import parsed, python_files, relative


@pytest.mark.parametrize("path", [*python_files("plugins"), *python_files("tests")], ids=relative)
def test_no_name_is_an_underscore(path):
    names = (node for node in ast.walk(parsed(path)) if isinstance(node, ast.Name))
    assert not [node.lineno for node in names if node.id == "_"]


@pytest.mark.parametrize("path", python_files("plugins"), ids=relative)
def test_the_product_raises_and_does_not_assert(path):
    assert not [node.lineno for node in ast.walk(parsed(path)) if isinstance(node, ast.Assert)]
