# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the collection's own sources, for the tests that hold its rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PLUGINS = CHECKOUT / "plugins"
PACKAGE = "ansible_collections.vmbackup.esx"


def python_files(*folders: str) -> list[Path]:
    """Return the Python files below these folders of the checkout."""
    return sorted(path for folder in folders for path in (CHECKOUT / folder).rglob("*.py"))


@lru_cache(maxsize=None)
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported_names(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, with full names, wherever in the file the import stands."""
    package = [*PACKAGE.split("."), *path.relative_to(CHECKOUT).with_suffix("").parts]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: -node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            # `from ..store import names` imports a module too: name it in full.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room(name: str) -> str:
    """Return the room of a module of ours by its full name, "" for what is not ours."""
    prefix = f"{PACKAGE}.plugins."
    if not name.startswith(f"{PACKAGE}."):
        return ""
    parts = name[len(prefix) :].split(".") if name.startswith(prefix) else ["outside"]
    return parts[1] if parts[0] == "module_utils" else parts[0]


def relative(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))
