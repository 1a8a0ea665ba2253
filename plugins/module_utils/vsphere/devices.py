# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual hardware as facts: disks, controllers and what forbids a snapshot.

Invariant: a class of device that is not known here keeps vSphere's name, so that the judgement refuses it.
"""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from ..core.vm.facts import DiskFacts
from .pyvmomi import vim

_FAMILIES = (
    ("VirtualSCSIController", "scsi"),
    ("VirtualAHCIController", "sata"),
    ("VirtualNVMEController", "nvme"),
    ("VirtualIDEController", "ide"),
)
_RDM = {"physicalMode": "rdm_physical", "virtualMode": "rdm_virtual"}


def disks_of(config: Any) -> Tuple[DiskFacts, ...]:
    """Return the disks of a VM's or a snapshot's configuration."""
    devices: Dict[int, Any] = {each.key: each for each in config.hardware.device}
    disks = [each for each in config.hardware.device if isinstance(each, vim.vm.device.VirtualDisk)]
    return tuple(_disk(each, devices.get(each.controllerKey)) for each in disks)


def passthrough_of(config: Any) -> Tuple[str, ...]:
    """Return the labels of PCI passthrough devices, vGPUs among them."""
    return tuple(
        _label(each) for each in config.hardware.device if isinstance(each, vim.vm.device.VirtualPCIPassthrough)
    )


def shared_controllers_of(config: Any) -> Tuple[str, ...]:
    """Return the labels of controllers whose bus is shared with other VMs."""
    return tuple(_label(each) for each in config.hardware.device if _bus_sharing(each) not in ("", "noSharing"))


def has_vtpm(config: Any) -> bool:
    """Tell whether a virtual TPM is there."""
    return any(isinstance(each, vim.vm.device.VirtualTPM) for each in config.hardware.device)


def chain_of(backing: Any) -> List[Any]:
    """Return a disk's backings, the base first."""
    links = []
    while backing is not None:
        links.append(backing)
        backing = getattr(backing, "parent", None)
    return links[::-1]


def _disk(disk: Any, controller: Any) -> DiskFacts:
    backing = disk.backing
    family = _family(controller)
    return DiskFacts(
        label=_label(disk),
        key=int(disk.key),
        node="{}{}:{}".format(family, getattr(controller, "busNumber", "?"), disk.unitNumber),
        controller=family,
        adapter=type(controller).__name__.rsplit(".", 1)[-1],
        bus_sharing=_bus_sharing(controller),
        capacity=int(getattr(disk, "capacityInBytes", None) or (disk.capacityInKB or 0) * 1024),
        path=str(getattr(backing, "fileName", None) or ""),
        mode=str(getattr(backing, "diskMode", None) or ""),
        sharing=str(getattr(backing, "sharing", None) or ""),
        backing=_backing(backing),
        chain=tuple(str(each.fileName) for each in chain_of(backing) if getattr(each, "fileName", None)),
        uuid=str(getattr(backing, "uuid", None) or ""),
        thin=bool(getattr(backing, "thinProvisioned", None)),
        encrypted=getattr(backing, "keyId", None) is not None,
    )


def _family(controller: Any) -> str:
    for kind, family in _FAMILIES:
        if isinstance(controller, getattr(vim.vm.device, kind)):
            return family
    return type(controller).__name__.rsplit(".", 1)[-1]


def _backing(backing: Any) -> str:
    if isinstance(backing, vim.vm.device.VirtualDisk.FlatVer2BackingInfo):
        return "flat"
    if isinstance(backing, vim.vm.device.VirtualDisk.SeSparseBackingInfo):
        return "sesparse"
    if isinstance(backing, vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo):
        return _RDM.get(str(backing.compatibilityMode), "rdm_" + str(backing.compatibilityMode))
    return type(backing).__name__.rsplit(".", 1)[-1]


def _bus_sharing(controller: Any) -> str:
    return str(getattr(controller, "sharedBus", None) or "")


def _label(device: Any) -> str:
    info = device.deviceInfo
    return str(info.label) if info is not None and info.label else "device {}".format(device.key)
