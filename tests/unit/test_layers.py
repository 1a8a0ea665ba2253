# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layers, held by reading the imports: core at the bottom, vsphere and glue upon it, modules on top."""

from __future__ import annotations

import ast
import sys

import pytest

from tests.unit.sources import CHECKOUT, PLUGINS, imported_names, parsed, python_files, relative, room

UTILS = "plugins/module_utils"
# Who may import whom; a room may always import itself.
MAY_IMPORT = {
    "core": {"core"},
    "vsphere": {"core", "vsphere"},
    "glue": {"core", "glue"},
    "modules": {"core", "vsphere", "glue"},
    "action": {"core", "glue"},
    "doc_fragments": set(),
}
# Accelerators that core may use when they are there.
OPTIONAL = {"isal"}
MAX_LINES = 300


@pytest.mark.parametrize("path", python_files("plugins"), ids=relative)
def test_a_room_imports_only_the_rooms_below_it(path):
    parts = path.relative_to(PLUGINS).parts
    here = parts[1] if parts[0] == "module_utils" else parts[0]
    assert here in MAY_IMPORT, f"{here} is a new room: say in MAY_IMPORT what it may import"
    wrong = {name for name in imported_names(path) if room(name) and room(name) not in MAY_IMPORT[here]}
    assert not wrong


@pytest.mark.parametrize("path", python_files(f"{UTILS}/core"), ids=relative)
def test_core_stands_on_the_standard_library_alone(path):
    foreign = {name.split(".")[0] for name in imported_names(path) if not room(name)}
    assert foreign - set(sys.stdlib_module_names) - OPTIONAL == set()


def test_one_file_of_vsphere_imports_pyvmomi():
    found = {
        relative(path)
        for path in python_files("plugins")
        if {name.split(".")[0] for name in imported_names(path)} & {"pyVmomi", "pyVim", "vmware"}
    }
    assert found == {f"{UTILS}/vsphere/pyvmomi.py"}


def test_modules_end_in_one_file_of_glue():
    words = {"fail_json", "exit_json"}
    found = {
        relative(path)
        for path in python_files("plugins")
        if words & {node.attr for node in ast.walk(parsed(path)) if isinstance(node, ast.Attribute)}
    }
    assert found == {f"{UTILS}/glue/boundary.py"}


def test_every_package_is_marked_by_an_empty_file():
    folders = {path.parent for path in python_files(UTILS)} - {CHECKOUT / UTILS}
    assert {relative(folder) for folder in folders if not (folder / "__init__.py").exists()} == set()
    full = {relative(path) for path in python_files(UTILS) if path.name == "__init__.py" and path.read_bytes()}
    assert full == set()


@pytest.mark.parametrize("path", python_files("plugins", "tests"), ids=relative)
def test_no_file_is_too_long_to_be_read_at_once(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines - documentation_lines(path) <= MAX_LINES


def documentation_lines(path):
    """A module's documentation blocks are not code: they are read on the web."""
    blocks = [node for node in parsed(path).body if isinstance(node, ast.Assign)]
    named = [node for node in blocks if getattr(node.targets[0], "id", "") in ("DOCUMENTATION", "EXAMPLES", "RETURN")]
    return sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in named)
