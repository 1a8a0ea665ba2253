# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding the one VM that is meant.

Invariant: a VM is never guessed; none or several are errors that say which option helps.
"""

from __future__ import annotations

import difflib
import unicodedata
from dataclasses import dataclass
from typing import Any, Dict, List, Optional
from urllib.parse import unquote

from ..core.errors import VmbackupError
from .pyvmomi import vim
from .session import Session

_PROPERTIES = ["name", "config.instanceUuid", "runtime.host", "parent"]


@dataclass(frozen=True)
class VmSelector:
    """Which VM is meant: by moid, else by instance UUID, else by name and, where given, folder."""

    name: str
    uuid: Optional[str] = None
    folder: Optional[str] = None
    moid: Optional[str] = None


@dataclass(frozen=True)
class _Candidate:
    machine: Any
    name: str
    uuid: str
    host: Any
    parent: Any


def find_vm(session: Session, selector: VmSelector) -> Any:
    """Return the vim.VirtualMachine that is meant.

    Raises vm_not_found, vm_ambiguous.
    """
    if selector.moid:
        return _by_moid(session, selector)
    known = _all(session)
    found = [each for each in known if _matches(each, selector)]
    if selector.folder and not selector.uuid:
        found = [each for each in found if _in_folder(folder_path(session, each.parent), selector.folder)]
    if not found:
        raise _not_found(session, selector, known)
    if len(found) > 1:
        raise _ambiguous(session, selector, found)
    return found[0].machine


def datacenter_of(vm_obj: Any) -> Any:
    """Return the vim.Datacenter of a VM, or None for one in no datacenter's folder."""
    node = vm_obj.parent or vm_obj.parentVApp
    while node is not None and not isinstance(node, vim.Datacenter):
        node = node.parent
    return node


def folder_path(session: Session, folder: Any) -> str:
    """Return a folder's path from the root, such as /DC0/vm/prod, with names as people write them."""
    names: List[str] = []
    while folder is not None:
        parent = session.ask("reading the folder of a VM", lambda node=folder: node.parent, True)
        if parent is not None:  # the root folder has no place in a path
            names.append(plain_name(session.ask("reading a folder's name", lambda node=folder: node.name, True)))
        folder = parent
    return "/" + "/".join(reversed(names))


def plain_name(stored: str) -> str:
    """Return a name as people write it: vSphere stores %, / and \\ as %25, %2f and %5c."""
    return unicodedata.normalize("NFC", unquote(stored))


def _by_moid(session: Session, selector: VmSelector) -> Any:
    machine = vim.VirtualMachine(selector.moid, session.si._stub)
    try:
        session.ask("looking for the VM with id {}".format(selector.moid), lambda: machine.name, True)
    except VmbackupError as error:
        if error.code != "object_gone":
            raise
        raise _not_found(session, selector, []) from error
    return machine


def _all(session: Session) -> List[_Candidate]:
    """Read name, UUID, host and folder of every VM in one call of the property collector."""
    rows = session.ask(
        "listing the VMs of " + session.connection.place,
        lambda: session.client.get_managed_object_references(
            vim.VirtualMachine, properties=_PROPERTIES, folder=session.content.rootFolder
        ),
        True,
    )
    return [_candidate(session, row) for row in rows]


def _candidate(session: Session, row: Any) -> _Candidate:
    values: Dict[str, Any] = {each.name: each.val for each in row.propSet}
    return _Candidate(
        vim.VirtualMachine(row.obj._moId, session.si._stub),
        str(values.get("name", "")),
        str(values.get("config.instanceUuid", "")),
        values.get("runtime.host"),
        values.get("parent"),
    )


def _matches(candidate: _Candidate, selector: VmSelector) -> bool:
    if selector.uuid:
        return candidate.uuid.lower() == selector.uuid.lower()
    wanted = unicodedata.normalize("NFC", selector.name)
    return wanted in (unicodedata.normalize("NFC", candidate.name), plain_name(candidate.name))


def _in_folder(path: str, wanted: str) -> bool:
    end = "/" + unicodedata.normalize("NFC", wanted).strip("/")
    return path == end or path.endswith(end)


def _described(selector: VmSelector) -> str:
    if selector.moid:
        return "with id {}".format(selector.moid)
    if selector.uuid:
        return "with instance UUID {}".format(selector.uuid)
    return "named '{}'{}".format(selector.name, " in folder {}".format(selector.folder) if selector.folder else "")


def _not_found(session: Session, selector: VmSelector, known: List[_Candidate]) -> VmbackupError:
    alike = difflib.get_close_matches(selector.name, [plain_name(each.name) for each in known], 3)
    return VmbackupError(
        "vm_not_found",
        "{} has no VM {}{}".format(
            session.connection.place,
            _described(selector),
            "; names like it: {}".format(", ".join(alike)) if alike else "",
        ),
        "check vm_name (case matters), vm_folder, vm_uuid or vm_moid, and that the user may see the VM",
    )


def _ambiguous(session: Session, selector: VmSelector, found: List[_Candidate]) -> VmbackupError:
    listed = [
        "{}/{} (instance UUID {}, ESX host {})".format(
            folder_path(session, each.parent), plain_name(each.name), each.uuid or "unknown", _host_name(session, each)
        )
        for each in found
    ]
    return VmbackupError(
        "vm_ambiguous",
        "{} has {} VMs {}: {}".format(
            session.connection.place, len(found), _described(selector), "; ".join(sorted(listed))
        ),
        "set vm_uuid to the instance UUID, or vm_folder to the folder of the one that is meant",
    )


def _host_name(session: Session, candidate: _Candidate) -> str:
    if candidate.host is None:
        return "unknown"
    return str(session.ask("reading the ESX host of a VM", lambda: candidate.host.name, True))
