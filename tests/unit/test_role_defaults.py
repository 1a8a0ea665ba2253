# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A role's defaults and its argument specs say the same."""

from __future__ import annotations

import pytest
import yaml

from tests.unit.sources import CHECKOUT

ROLES = sorted(path.parent.parent for path in (CHECKOUT / "roles").glob("*/meta/argument_specs.yml"))


def options(role) -> dict:
    entry_points = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    return {name: option for entry in entry_points.values() for name, option in (entry.get("options") or {}).items()}


def defaults(role) -> dict:
    return yaml.safe_load((role / "defaults" / "main.yml").read_text())


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_the_specs_name_every_default_with_its_value(role):
    described = {name: option["default"] for name, option in options(role).items() if "default" in option}
    assert described == defaults(role)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_what_has_no_default_is_required(role):
    missing = {name for name, option in options(role).items() if "default" not in option and not option.get("required")}
    assert not missing


def test_every_role_has_argument_specs():
    assert {role.name for role in ROLES} == {path.name for path in (CHECKOUT / "roles").iterdir() if path.is_dir()}
