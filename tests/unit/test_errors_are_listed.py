# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/errors.md lists exactly the codes that the sources raise."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.unit.sources import CHECKOUT, parsed, python_files, relative

ROW = re.compile(r"^\| `([a-z0-9_]+)` \| .+ \| .+ \|$", re.MULTILINE)
# What a code is handed to: the errors, and the judgement's findings.
CARRIERS = {"VmbackupError", "Finding"}
# The receiver's own codes come over the wire; they are literals where the receiver raises them.
RELAYS = {"plugins/module_utils/core/store/wire_link.py"}


def codes(path) -> Iterator[ast.expr]:
    """Yield the expression of each code that a file gives to a carrier, or to a function of its own that has `code`."""
    functions = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef)]
    carriers = CARRIERS | {node.name for node in functions if node.args.args and node.args.args[0].arg == "code"}
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in carriers:
            named = [word.value for word in node.keywords if word.arg == "code"]
            yield from (named or node.args)[:1]


def passed_on(code: ast.expr) -> bool:
    """Tell whether a code is another error's, told again with more words, or the argument of a carrier."""
    return getattr(code, "attr", "") == "code" or getattr(code, "id", "") == "code"


def raised() -> set[str]:
    found = {code.value for path in python_files("plugins") for code in codes(path) if isinstance(code, ast.Constant)}
    return found | {"internal"}  # the boundary's own, for a defect


def listed() -> list[str]:
    return ROW.findall((CHECKOUT / "docs" / "errors.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", python_files("plugins"), ids=relative)
def test_every_code_is_a_literal_where_it_is_raised(path):
    computed = [code.lineno for code in codes(path) if not isinstance(code, ast.Constant) and not passed_on(code)]
    assert relative(path) in RELAYS or not computed, "lines whose code cannot be found by searching for it"


def test_every_code_that_is_raised_is_listed():
    assert raised() - set(listed()) == set()


def test_every_code_that_is_listed_is_raised():
    assert set(listed()) - raised() == set()


def test_no_code_is_listed_twice():
    assert len(listed()) == len(set(listed()))
