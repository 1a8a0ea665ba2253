# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of every module that works on a guest's files, and what they mean.

Invariant: specification and conversion stand side by side; plugins/doc_fragments/files.py documents the same options.
"""

from __future__ import annotations

from typing import Any, Dict, List

from ..core.priority import step_aside
from ..core.tree.rules import ScanRules
from ..core.tree.survey import Survey
from .boundary import Params


def file_spec() -> Dict[str, Any]:
    """Return the argument spec that modules on files share."""
    return {
        "vm": {"type": "str", "required": True},
        "paths": {"type": "list", "elements": "str", "default": ["/"]},
        "exclude": {"type": "list", "elements": "str", "default": []},
        "exclude_if_present": {"type": "list", "elements": "str", "default": []},
        "exclude_caches": {"type": "bool", "default": True},
        "cross_filesystems": {"type": "bool", "default": False},
        "state_dir": {"type": "path", "default": "/var/lib/vmbackup"},
        "priority": {"type": "str", "choices": ["idle", "normal"], "default": "idle"},
    }


def scan_rules(params: Params, *own_folders: str) -> ScanRules:
    """Return what to scan; own_folders: further folders of ours that are never part of a backup. Raises as ScanRules."""
    return ScanRules(
        paths=tuple(params["paths"]),
        exclude=tuple(params["exclude"]),
        exclude_if_present=tuple(params["exclude_if_present"]),
        exclude_caches=params["exclude_caches"],
        cross_filesystems=params["cross_filesystems"],
        always_out=(params["state_dir"], *own_folders),
    )


def take_priority(params: Params) -> None:
    """Obey the option priority."""
    if params["priority"] == "idle":
        step_aside()


def left_out_of(found: Survey) -> List[Dict[str, str]]:
    """Return what a scan left out, as results show it: UTF-8 whatever the names are."""
    return [{"what": shown_path(each.what), "kind": each.kind, "reason": each.reason} for each in found.left_out]


def shown_path(path: bytes) -> str:
    """Return a path as results show it."""
    return "/" + path.decode("utf-8", "backslashreplace")
