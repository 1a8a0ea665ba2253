# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action group `esx` lists exactly the modules that take connection options."""

from __future__ import annotations

import ast

import yaml

from tests.unit.sources import CHECKOUT, parsed, python_files


def documentation(path) -> dict:
    for node in parsed(path).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DOCUMENTATION":
            return yaml.safe_load(node.value.value)
    raise AssertionError(f"{path} has no DOCUMENTATION")


def connects(path) -> bool:
    fragments = documentation(path).get("extends_documentation_fragment", [])
    return any(fragment.startswith("vmware.vmware.base_options") for fragment in fragments)


def test_the_group_lists_the_modules_that_connect():
    group = yaml.safe_load((CHECKOUT / "meta" / "runtime.yml").read_text())["action_groups"]["esx"]
    names = [entry for entry in group if isinstance(entry, str)]
    assert sorted(names) == sorted(path.stem for path in python_files("plugins/modules") if connects(path))


def test_the_group_extends_the_one_of_community_vmware():
    group = yaml.safe_load((CHECKOUT / "meta" / "runtime.yml").read_text())["action_groups"]["esx"]
    assert {"metadata": {"extend_group": ["community.vmware.vmware"]}} in group
