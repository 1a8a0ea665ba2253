# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way to a store over plain OpenSSH, and what went wrong on it.

Invariant: ssh never asks a question, never trusts an unknown host, and never sees a secret in its arguments.
"""

from __future__ import annotations

import re
import tempfile
from typing import IO, List, Optional

from ..errors import VmbackupError
from .link import LocalLink, StoreAddress, StoreLink
from .wire import plain_words
from .wire_link import SILENCE, WireLink

HOST_KEY_ALIAS = "vmbackup-store"
# Not run on a store that is set up (its forced command takes the place); fails cleanly on one that is not.
REMOTE_COMMAND = "vmbackup-receiver"


class SshLink(WireLink):
    """A session with a store behind SSH; connects when first used."""

    def __init__(self, address: StoreAddress, silence: float = SILENCE) -> None:
        self._known_hosts = _written(address.host_key) if address.host_key else None
        known_hosts = self._known_hosts.name if self._known_hosts else address.known_hosts
        super().__init__(
            ssh_command(address, known_hosts),
            lambda code, words, greeted: blame(address, code, words, greeted),
            silence,
        )


def open_link(address: StoreAddress) -> StoreLink:
    """Return a link to the store; one behind SSH connects when it is first used."""
    return LocalLink(address.path) if address.path else SshLink(address)


def ssh_command(address: StoreAddress, known_hosts: str = "") -> List[str]:
    """Return the arguments of ssh. known_hosts: the file to trust; else the user's own."""
    options = [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "UpdateHostKeys=no",
        "ControlPath=none",
        "ClearAllForwardings=yes",
        "Compression=no",
        "ConnectTimeout={}".format(max(1, address.timeout // 2)),
        "ServerAliveInterval={}".format(max(1, address.timeout // 3)),
        "ServerAliveCountMax=3",
    ]
    if known_hosts:
        options += ["UserKnownHostsFile={}".format(_quoted(known_hosts)), "GlobalKnownHostsFile=/dev/null"]
    if address.host_key:
        options += ["HostKeyAlias={}".format(HOST_KEY_ALIAS)]
    if address.key_file:
        options += ["IdentitiesOnly=yes", "IdentityAgent=none"]
    command = ["ssh", "-T", "-p", str(address.port)]
    for option in options:
        command += ["-o", option]
    if address.key_file:
        command += ["-i", address.key_file]
    return command + ["{}@{}".format(address.user, address.host), REMOTE_COMMAND]


def blame(address: StoreAddress, code: Optional[int], words: str, greeted: bool) -> VmbackupError:
    """Return the error of an ssh that ended. code: its exit code; words: its last words; greeted: by a receiver."""
    cause = plain_words(words.splitlines()[-1]) if words else "no message"
    if greeted:
        return VmbackupError(
            "store_link_lost",
            "The link to the store {} broke: {}.".format(address, cause),
            "Run the copy again; it goes on where it stopped. Raise retry_for to wait longer.",
        )
    if any(line.startswith("vmbackup-receiver: ") for line in words.splitlines()):  # not a shell that lacks it
        return VmbackupError(
            "store_receiver_failed",
            "The receiver on the store {} stopped: {}.".format(address, cause),
            "Run the role store there, with this key in vmbackup_store_keys.",
        )
    if code == 255 or (code is not None and code < 0) or re.search("Connection .* (closed|timed out)", words):
        return _ssh_failure(address, words, cause)
    return VmbackupError(
        "store_receiver_missing",
        "No receiver answered on the store {}: {}.".format(address, cause),
        "Run the role store there, with this key in vmbackup_store_keys.",
    )


def _ssh_failure(address: StoreAddress, words: str, cause: str) -> VmbackupError:
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in words or "identification for" in words:
        return VmbackupError(
            "store_host_key_changed",
            "The store {} shows another host key than the one that is known.".format(address),
            "Find out why before you trust it; then correct known_hosts or host_key of the store.",
        )
    if "Host key verification failed" in words or "host key is known" in words:
        return VmbackupError(
            "store_host_key_unknown",
            "The host key of the store {} is not known here.".format(address),
            "Set known_hosts (vmbackup_store_known_hosts) or host_key (vmbackup_store_host_key) of the store.",
        )
    if "Load key" in words or "not accessible" in words or "UNPROTECTED PRIVATE KEY" in words:
        return VmbackupError(
            "store_key_unusable",
            "The private key for the store {} cannot be used: {}.".format(address, cause),
            "Set key_file of the store to a private key on the mover that its user alone can read.",
        )
    if "Permission denied" in words:
        return VmbackupError(
            "store_key_refused",
            "The store {} does not accept this key: {}.".format(address, cause),
            "Put its public key into vmbackup_store_keys and run the role store, or set key_file and user of the store.",
        )
    return VmbackupError(
        "store_unreachable",
        "The store {} cannot be reached: {}.".format(address, cause),
        "Check host and port of the store, its sshd, and the firewalls between.",
    )


def _written(host_key: str) -> IO[str]:
    """Write host keys (lines as in known_hosts or as in a .pub file) to a private file that goes with its object."""
    pairs = [re.search(r"((?:ssh|ecdsa|sk)-\S+) ([A-Za-z0-9+/=]+)", line) for line in host_key.splitlines()]
    lines = ["{} {} {}\n".format(HOST_KEY_ALIAS, pair.group(1), pair.group(2)) for pair in pairs if pair]
    if not lines:
        raise VmbackupError(
            "store_address_invalid",
            "host_key of the store holds no SSH host key.",
            "Copy a line of ssh-keyscan, such as: ssh-ed25519 AAAA...",
        )
    file = tempfile.NamedTemporaryFile("w", prefix="vmbackup-known-hosts-")
    file.writelines(lines)
    file.flush()
    return file


def _quoted(path: str) -> str:
    """Quote a path for ssh, which splits this option at blanks and expands % and ~."""
    return '"{}"'.format(path.replace("%", "%%"))
