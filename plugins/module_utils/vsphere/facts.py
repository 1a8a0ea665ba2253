# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what is known of a VM.

Invariant: two round trips, whatever the VM's size; nothing is guessed.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..core.errors import VmbackupError
from ..core.vm.facts import DatastoreFacts, FileFacts, SnapshotFacts, VmFacts
from ..core.vm.lease import parse_lease
from .devices import disks_of, has_vtpm, passthrough_of, shared_controllers_of
from .properties import retrieve
from .session import Session

_OF_VM = ("name", "config", "runtime", "snapshot", "layoutEx", "datastore")
_OF_HOST = ("name", "summary.config.product")
_OF_STORE = ("name", "summary")
_POWER = {"poweredOn": "powered_on", "poweredOff": "powered_off", "suspended": "suspended"}


def read_facts(session: Session, vm_obj: Any) -> VmFacts:
    """Read what is known of a VM.

    Raises vm_inaccessible, and the errors of Session.ask.
    """
    title = "reading VM " + session.title(vm_obj)
    seen = retrieve(session, title, {vm_obj: _OF_VM})[0]
    runtime = seen["runtime"]
    require_config(seen, session.title(vm_obj))
    wanted: Dict[Any, Tuple[str, ...]] = dict.fromkeys(seen["datastore"] or (), _OF_STORE)
    stores = len(wanted)
    if runtime.host is not None:
        wanted[runtime.host] = _OF_HOST
    around = retrieve(session, title, wanted) if wanted else []
    return _facts(seen, around[:stores], around[stores] if len(around) > stores else {})


def require_config(seen: Dict[str, Any], title: str) -> None:
    """Raise vm_inaccessible for a VM whose configuration vSphere cannot read itself."""
    if seen["config"] is None or seen["runtime"] is None:
        raise VmbackupError(
            "vm_inaccessible",
            "vSphere cannot read the configuration of VM {}: it is inaccessible, orphaned or being made.".format(title),
            "Look at the VM and its datastore in vSphere.",
        )


def files_of(layout: Any) -> Tuple[FileFacts, ...]:
    """Return the files that layoutEx lists."""
    return tuple(
        FileFacts(int(each.key), str(each.name), str(each.type), int(each.size))
        for each in (layout.file if layout is not None else ())
    )


def _facts(seen: Dict[str, Any], stores: List[Dict[str, Any]], host: Dict[str, Any]) -> VmFacts:
    config, runtime = seen["config"], seen["runtime"]
    product = host.get("summary.config.product")
    key = getattr(config, "keyId", None)
    return VmFacts(
        name=str(seen["name"]),
        instance_uuid=str(config.instanceUuid or ""),
        bios_uuid=str(config.uuid or ""),
        power_state=_POWER.get(str(runtime.powerState), str(runtime.powerState)),
        template=bool(config.template),
        guest_os=str(config.guestFullName or config.guestId or ""),
        esx_host=str(host.get("name") or ""),
        esx_version=str(product.version) if product else "",
        esx_build=str(product.build) if product else "",
        boot_time=runtime.bootTime.isoformat() if runtime.bootTime else None,
        change_version=str(config.changeVersion or ""),
        vmx_path=str(config.files.vmPathName),
        disks=disks_of(config),
        passthrough=passthrough_of(config),
        shared_controllers=shared_controllers_of(config),
        vtpm=has_vtpm(config),
        encryption_key=str(key.keyId) if key else "",
        fault_tolerant=str(runtime.faultToleranceState or "notConfigured") != "notConfigured",
        snapshots=tuple(_snapshots(seen["snapshot"].rootSnapshotList if seen["snapshot"] else ())),
        consolidation_needed=bool(runtime.consolidationNeeded),
        datastores=tuple(_datastore(each) for each in stores),
        files=files_of(seen["layoutEx"]),
    )


def _snapshots(tree: Any) -> Iterator[SnapshotFacts]:
    for each in tree:
        ours = parse_lease(each.name, each.description or "") is not None
        yield SnapshotFacts(str(each.name), int(each.id), _time(each.createTime), ours)
        yield from _snapshots(each.childSnapshotList or ())


def _time(moment: Optional[Any]) -> str:
    return str(moment.isoformat()) if moment else ""


def _datastore(seen: Dict[str, Any]) -> DatastoreFacts:
    summary = seen["summary"]
    return DatastoreFacts(
        str(seen["name"]), str(summary.type), int(summary.freeSpace), int(summary.capacity), bool(summary.accessible)
    )
