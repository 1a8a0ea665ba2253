# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who logs in, to whom, and what they may do."""

from __future__ import annotations

import os
import socket

from tests.lab.site import LabSite

from .ground import Ground

_TRUSTS_ANY = {"vmbackup_esx_validate_certs": False}
_NO_AUTHORITY = {"REQUESTS_CA_BUNDLE": "", "SSL_CERT_FILE": os.devnull}


def test_logins_certificates_and_permissions(lab: LabSite, ground: Ground) -> None:
    """The environment trusts no authority, so only those who trust any certificate come in."""
    wrong = {"vmbackup_esx_password": "Wrong-secret-17"}
    ground.secrets.add(wrong["vmbackup_esx_password"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = {"vmbackup_esx_hostname": "127.0.0.1", "vmbackup_esx_port": free.getsockname()[1]}
        machines = {
            guest: ground.vm(guest, variables={**_TRUSTS_ANY, **variables})
            for guest, variables in {
                "untrusted": {"vmbackup_esx_validate_certs": True},
                "any-certificate": {},
                "wrong-password": wrong,
                "closed": closed,
                "may-not-create": ground.user("esx1", "creator", "CreateSnapshot_Task"),
                "may-not-remove": ground.user("esx1", "remover", "RemoveSnapshot_Task"),
                "may-not-rename": ground.user("esx1", "renamer", "RenameSnapshot"),
            }.items()
        }
        outcome = ground.run(env=_NO_AUTHORITY)
    esx = lab.esx["esx1"]
    place = f"{esx.hostname}:{esx.port}"
    outcome.failed("untrusted", "esx_certificate", place, "not trusted", "REQUESTS_CA_BUNDLE", "validate_certs=false")
    outcome.failed("wrong-password", "esx_login", place, "as root", "incorrect user name or password", "check username")
    outcome.failed("closed", "esx_unreachable", "127.0.0.1:{}".format(closed["vmbackup_esx_port"]), "port")
    outcome.failed("may-not-create", "esx_permission", "'may-not-create'", "VirtualMachine.CreateSnapshot", "username")
    refused = ("untrusted", "wrong-password", "closed", "may-not-create")
    ground.require_nothing(*(machines[guest] for guest in refused))
    for guest in ("any-certificate", "may-not-rename"):
        ground.require_backup(machines[guest], outcome.good(guest))
        ground.require_calm(machines[guest])

    left = machines["may-not-remove"]
    outcome.failed(
        "may-not-remove",
        "snapshot_not_removed",
        "is complete, but",
        "'may-not-remove'",
        "RemoveSnapshot",
        "cleanup.yml",
    )
    (backup_id,) = [path.name for path in ground.backups(left)]
    ground.require_backup(left, backup_id)
    assert left.ours() == ["vmbackup-" + backup_id]
    for guest in refused[:3]:
        ground.guest(guest)
    ground.guest("may-not-remove")  # as root
    repaired = ground.run("cleanup.yml")
    assert repaired.rc == 0, repaired.output
    ground.require_calm(*machines.values())
