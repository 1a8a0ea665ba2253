# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a store's address, and the address that they mean."""

from __future__ import annotations

from typing import Any, Dict, Mapping

from ..core.store.link import StoreAddress


def store_spec() -> Dict[str, Any]:
    """Return the argument spec of `store`, as the documentation fragment of that name describes it."""
    options: Dict[str, Any] = {
        "host": {"type": "str"},
        "port": {"type": "int", "default": 22},
        "user": {"type": "str", "default": "vmbackup"},
        "key_file": {"type": "path", "no_log": False},  # a path, not a key
        "known_hosts": {"type": "path"},
        "host_key": {"type": "str", "no_log": False},  # public
        "path": {"type": "path"},
        "timeout": {"type": "int", "default": 45},
    }
    return {"store": {"type": "dict", "options": options}}


def store_address(params: Mapping[str, Any]) -> StoreAddress:
    """Return the address that a module's parameters name; raises store_address_invalid."""
    given = {name: value for name, value in (params["store"] or {}).items() if value is not None}
    return StoreAddress(**given)
