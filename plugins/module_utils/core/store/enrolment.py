# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may log in to a store: the policy file, and the authorized_keys that follow from it.

Invariants: both files are made from one document, whole, under one lock, so that parallel enrolments lose no key; a
key's line holds one forced command and nothing that could end it early; keys of guests and keys of the inventory never
replace one another.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping

from ..errors import VmbackupError
from .durable import store_error, write_durably
from .grants import check_policy
from .names import key_name

GUEST = "guest."
LOGIN = "login"  # the part of an entry that sshd needs and the receiver passes over
_MODE = 0o644

_PUBLIC_KEY = re.compile(r"(?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+ [A-Za-z0-9+/=]+(?: [^\n\r]*)?")
_SOURCES = re.compile(r'[^"\n\r]*')
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._+-]*")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._]{0,39}")

Document = Dict[str, Any]


@dataclass(frozen=True)
class StoreDoor:
    """The files of a store's door. root: of the backups. python, receiver: what sshd starts for each key."""

    root: str
    python: str
    receiver: str
    policy_file: str
    authorized_keys: str

    def __post_init__(self) -> None:
        for path in (self.python, self.receiver, self.policy_file):
            if not _PLAIN_PATH.fullmatch(path):
                raise _invalid("the path {!r} stands in a forced command: it must be absolute and plain".format(path))


def guest_key_name(vm: str) -> str:
    """Return the name of a guest's key; one that is not plain is told from others by a digest."""
    if _PLAIN_NAME.fullmatch(vm):
        return GUEST + vm
    digest = hashlib.sha256(vm.encode("utf-8", "surrogateescape")).hexdigest()
    return "{}.{}.{}".format(
        GUEST, re.sub("[^A-Za-z0-9]", "_", vm)[:24], digest[:16]
    )  # no plain name begins with a dot


def read_document(door: StoreDoor) -> Document:
    """Return the policy as it stands, an empty one where there is none; raises policy_invalid."""
    try:
        document = json.loads(Path(door.policy_file).read_bytes())
    except FileNotFoundError:
        return {"format": 1, "root": door.root, "keys": {}}
    except (OSError, ValueError) as error:
        raise _invalid("{} cannot be read: {}".format(door.policy_file, error)) from None
    check_policy(door.policy_file, document)
    return {**document, "root": door.root}


def with_inventory_keys(document: Document, entries: Mapping[str, Any]) -> Document:
    """Return the document with exactly these keys beside those of guests. entries: rights and login by name."""
    for name in entries:
        if key_name(name).startswith(GUEST):
            raise _invalid("{} is a name for a guest's own key, which guest_setup enrols".format(name))
    guests = {name: entry for name, entry in document["keys"].items() if name.startswith(GUEST)}
    return {**document, "keys": {**entries, **guests}}


def with_guest(document: Document, vm: str, login: Mapping[str, str], limits: Mapping[str, int]) -> Document:
    """Return the document with a guest's key: it adds incrementals of its own VM and may do nothing else.

    login: public_key and from. limits: quota_bytes and in_flight_bytes.
    """
    entry = {"vms": [vm], "kinds": ["incremental"], "notes": [], **limits, LOGIN: dict(login)}
    return {**document, "keys": {**document["keys"], guest_key_name(vm): entry}}


def without_guest(document: Document, vm: str) -> Document:
    """Return the document without a guest's key."""
    return {**document, "keys": {n: e for n, e in document["keys"].items() if n != guest_key_name(vm)}}


def rendered(door: StoreDoor, document: Document) -> Dict[str, bytes]:
    """Return the content of both files, by path; raises policy_invalid."""
    check_policy(door.policy_file, document)
    lines = ["# Written by vmbackup.esx from {}; changes by hand are lost.".format(door.policy_file)]
    lines += [_line(door, name, entry) for name, entry in sorted(document["keys"].items())]
    policy = json.dumps(document, indent=2, sort_keys=True) + "\n"
    return {door.policy_file: policy.encode(), door.authorized_keys: ("\n".join(lines) + "\n").encode()}


def differing(files: Mapping[str, bytes]) -> List[str]:
    """Return the paths of files that do not stand as they should."""
    return [path for path, content in files.items() if not _stands(Path(path), content)]


def enrol(door: StoreDoor, change: Callable[[Document], Document]) -> None:
    """Change the document under the lock and write both files; raises policy_invalid and what the disk refuses."""
    try:
        with _locked(door.policy_file + ".lock"):
            files = rendered(door, change(read_document(door)))
            for path in differing(files):
                write_durably(path, files[path], _MODE)
    except OSError as error:
        raise store_error(error, str(error.filename or door.policy_file)) from error


def _stands(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content and path.stat().st_mode & 0o7777 == _MODE


def _line(door: StoreDoor, name: str, entry: Mapping[str, Any]) -> str:
    login = entry.get(LOGIN, {})
    public_key, sources = login.get("public_key", "").strip(), login.get("from", "")
    if not _PUBLIC_KEY.fullmatch(public_key):
        raise _invalid("key {} needs one public key on one line, without options".format(name))
    if not _SOURCES.fullmatch(sources):
        raise _invalid("from of key {} must not hold quotes or line breaks".format(name))
    command = "{} -I {} --policy {} --key {}".format(door.python, door.receiver, door.policy_file, key_name(name))
    limits = 'from="{}",'.format(sources) if sources else ""
    return 'restrict,{}command="{}" {}'.format(limits, command, public_key)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _invalid(complaint: str) -> VmbackupError:
    return VmbackupError(
        "policy_invalid",
        "The store's keys: {}.".format(complaint),
        "Correct vmbackup_store_keys, then run store_setup.",
    )
