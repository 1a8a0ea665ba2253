# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading many properties by one call.

Invariant: a property that is not set is None; one that cannot be read raises.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence

from .pyvmomi import vim, vmodl
from .session import Session


def retrieve(session: Session, what: str, wanted: Mapping[Any, Sequence[str]]) -> List[Dict[str, Any]]:
    """Return the properties of each object, in the order of `wanted` (object to property paths).

    what: what is being read, for messages. Raises object_gone and the other errors of Session.ask.
    """
    query = vmodl.query.PropertyCollector
    spec = query.FilterSpec(
        objectSet=[query.ObjectSpec(obj=each, skip=False) for each in wanted],
        propSet=[
            query.PropertySpec(type=kind, pathSet=sorted(paths), all=False) for kind, paths in _by_kind(wanted).items()
        ],
    )
    collector = session.content.propertyCollector
    answer = session.ask(what, lambda: collector.RetrieveContents([spec]), True)
    found: Dict[str, Dict[str, Any]] = {}
    for each in answer:
        for missing in each.missingSet or ():
            if not isinstance(missing.fault, vmodl.query.InvalidProperty):  # older servers know fewer properties
                session.ask(what, _raiser(missing.fault))
        found[each.obj._moId] = {each.name: each.val for each in each.propSet}
    return [{path: found.get(each._moId, {}).get(path) for path in paths} for each, paths in wanted.items()]


def _by_kind(wanted: Mapping[Any, Sequence[str]]) -> "Dict[Any, set[str]]":
    kinds: Dict[Any, set[str]] = {}
    for each, paths in wanted.items():
        kind = vim.VirtualMachine if isinstance(each, vim.VirtualMachine) else type(each)
        kinds.setdefault(kind, set()).update(paths)
    return kinds


def _raiser(fault: Any) -> Any:
    def call() -> None:
        raise fault

    return call
