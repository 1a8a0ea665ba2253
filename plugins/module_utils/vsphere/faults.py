# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a vSphere fault means to a user.

Invariant: every fault that leaves vsphere/ is a VmbackupError that names what was being done and which option helps.
"""

from __future__ import annotations

import socket
import ssl
from http.client import HTTPException
from typing import Any, Optional, Tuple
from xml.parsers.expat import ExpatError

from ..core.errors import VmbackupError
from .pyvmomi import vim

CONNECTION_ERRORS = (OSError, HTTPException, ExpatError, socket.timeout)

_QUIESCE = (
    "ApplicationQuiesceFault",
    "FilesystemQuiesceFault",
    "ToolsUnavailable",
    "VmToolsUpgradeFault",
    "GuestOperationsUnavailable",
)
_BUSY = ("TaskInProgress", "InvalidState", "InvalidPowerState", "ConcurrentAccess", "SnapshotLocked", "FileLocked")
_SPACE = ("NoDiskSpace", "InsufficientStorageSpace", "FileTooLarge")


def told(what: str, fault: BaseException) -> VmbackupError:
    """Say what a fault means.

    what: what was being done and to which object, such as "taking a snapshot of VM web01".
    fault: a pyVmomi fault, or an error of the connection.
    """
    if isinstance(fault, VmbackupError):
        return fault
    if isinstance(fault, ssl.SSLCertVerificationError):
        return certificate_error(what, fault)
    if isinstance(fault, CONNECTION_ERRORS):
        return VmbackupError(
            "esx_unreachable",
            "{}: the connection failed: {}".format(what, _said(fault)),
            "check hostname, port, proxy_host and the network between this node and the ESX host or vCenter",
        )
    return _rights(what, fault) or _state(what, fault) or _other(what, fault)


def certificate_error(what: str, fault: BaseException) -> VmbackupError:
    """Say that the server's certificate is not trusted."""
    return VmbackupError(
        "esx_certificate",
        "{}: the certificate is not trusted: {}".format(what, _said(fault)),
        "put the CA into the system's trust store, or name its file in the environment variable REQUESTS_CA_BUNDLE of "
        "this node; validate_certs=false trusts any certificate",
    )


def _rights(what: str, fault: BaseException) -> Optional[VmbackupError]:
    # NotAuthenticated is a kind of NoPermission
    if isinstance(fault, (vim.fault.InvalidLogin, vim.fault.NotAuthenticated)):
        return VmbackupError("esx_login", "{}: {}".format(what, _said(fault)), "check username and password")
    if isinstance(fault, vim.fault.NoPermission):
        return VmbackupError(
            "esx_permission",
            "{}: the user lacks {}".format(what, _lacking(fault)),
            "give the user of option username this privilege on that object",
        )
    if isinstance(fault, vim.fault.RestrictedVersion):
        return VmbackupError(
            "esx_licence",
            "{}: the licence of this ESX host does not allow writes through the API".format(what),
            "use a licence with API access (a free licence only reads)",
        )
    return None


def _lacking(fault: Any) -> str:
    """Name each missing privilege with its object; vSphere 7.0.3 and later list all of them in missingPrivileges."""
    missing = [
        "{} on {}".format(", ".join(entry.privilegeIds), _reference(entry.entity))
        for entry in getattr(fault, "missingPrivileges", None) or ()
    ]
    return "; ".join(missing) or "the privilege {} on {}".format(fault.privilegeId, _reference(fault.object))


def _reference(entity: Any) -> str:
    return "{}:{}".format(type(entity).__name__, entity._moId) if entity is not None else "an unnamed object"


def _state(what: str, fault: BaseException) -> Optional[VmbackupError]:
    kinds = _kinds(fault)
    if _is_quiesce(fault, kinds):
        return VmbackupError(
            "quiesce_failed",
            "{}: the guest could not be quiesced: {}".format(what, _said(fault)),
            "look at VMware Tools in the guest, or set quiesce to preferred or never",
        )
    if any(name in kinds for name in _SPACE):
        place = getattr(fault, "datastore", None)
        return VmbackupError(
            "datastore_full",
            "{}: no space is left on datastore {}: {}".format(what, place or "of the VM", _said(fault)),
            "free space on that datastore",
        )
    if any(name in kinds for name in _BUSY):
        return VmbackupError(
            "vm_state", "{}: {}".format(what, _said(fault)), "wait for the other task or power change of this VM to end"
        )
    if "ManagedObjectNotFound" in kinds:
        return VmbackupError("object_gone", "{}: the object is gone: {}".format(what, _said(fault)), "run again")
    return None


def _is_quiesce(fault: BaseException, kinds: Tuple[str, ...]) -> bool:
    """ESX also reports a failed quiesce as a generic fault whose text says so (KB 1009073: "QUIESCINGERROR")."""
    if any(name in kinds for name in _QUIESCE):
        return True
    generic = any(name in kinds for name in ("GenericVmConfigFault", "SnapshotFault", "SystemError"))
    return generic and "quiesc" in "{} {}".format(_said(fault), getattr(fault, "reason", "")).lower()


def _other(what: str, fault: BaseException) -> VmbackupError:
    return VmbackupError(
        "esx_fault",
        "{}: {}".format(what, _said(fault)),
        "the events of this object in the vSphere client say more",
    )


def _kinds(fault: BaseException) -> Tuple[str, ...]:
    return tuple(kind.__name__.rsplit(".", 1)[-1] for kind in type(fault).__mro__)


def _said(fault: BaseException) -> str:
    text = getattr(fault, "msg", None) or str(fault)
    name = type(fault).__name__.rsplit(".", 1)[-1]
    causes = [cause.message for cause in getattr(fault, "faultMessage", None) or () if cause.message]
    return "; ".join(["{} ({})".format(text, name) if text else name] + causes)
