# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records: append-only notes on a VM's backups, one small JSON file each.

Invariant: a record appears whole or not at all, and is never changed. Its name says when, what and who, so that
records can be counted and chosen without being opened: <stamp>-<kind>-<key>-<number>.json.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional

from ..errors import VmbackupError
from .durable import make_folder, write_durably
from .names import key_name, parse_backup_id

ARRIVED = "arrived"  # written by the store at commit
OWN_KINDS = (ARRIVED, "verified", "drilled")  # what only the store itself may say
WIRE_KINDS = ("copy", "failed", "usage")
_LARGEST = 32 << 10
_MOST = 5000


@dataclass(frozen=True)
class Record:
    """A note. backup_id: None when it is about no backup. arrived: aware, the store's clock. key: who sent it."""

    kind: str
    backup_id: Optional[str]
    arrived: datetime
    key: str
    body: Dict[str, Any]


def add_record(folder: Path, record: Record) -> str:
    """Add a record to a VM's folder of records and return its file's name; raises record_invalid, OSError."""
    data = _encode(record)
    stamp = record.arrived.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
    make_folder(str(folder))
    for number in count(os.getpid()):
        name = "{}-{}-{}-{}.json".format(stamp, record.kind, key_name(record.key), number)
        if not (folder / name).exists():
            write_durably(str(folder / name), data)
            break
    return name


def read_records(folder: Path, kind: str = "", key: str = "") -> Iterator[Record]:
    """Yield records in order of arrival, all or those of a kind or key; raises record_invalid for a damaged one."""
    for path in sorted(folder.glob("[0-9]*.json")) if folder.is_dir() else ():
        parts = path.name[: -len(".json")].split("-")
        if len(parts) == 4 and kind in ("", parts[1]) and key in ("", parts[2]):
            yield _decode(path)


def may_add(folder: Path, key: str) -> bool:
    """Tell whether a key has not yet filled a VM's records."""
    return not folder.is_dir() or len(list(folder.glob("*-{}-*.json".format(key_name(key))))) < _MOST


def last_arrival(folder: Path, backup_id: str) -> Optional[datetime]:
    """Return when a backup arrived, by the store's clock; None when it is not recorded."""
    found = [record.arrived for record in read_records(folder, ARRIVED) if record.backup_id == backup_id]
    return found[-1] if found else None


def _encode(record: Record) -> bytes:
    if record.backup_id is not None:
        parse_backup_id(record.backup_id)
    if record.kind not in OWN_KINDS + WIRE_KINDS:
        raise VmbackupError(
            "record_invalid",
            "{!r} is not a kind of record.".format(record.kind[:40]),
            "Use one of " + ", ".join(WIRE_KINDS),
        )
    document: Mapping[str, Any] = {
        "format": 1,
        "kind": record.kind,
        "backup_id": record.backup_id,
        "arrived": record.arrived.astimezone(timezone.utc).isoformat(),
        "key": record.key,
        "body": record.body,
    }
    data = (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
    if len(data) > _LARGEST:
        raise VmbackupError("record_invalid", "A record of {} bytes is too large.".format(len(data)), "Shorten it.")
    return data


def _decode(path: Path) -> Record:
    try:
        document = json.loads(path.read_bytes())
        arrived = datetime.fromisoformat(document["arrived"])
        return Record(document["kind"], document["backup_id"], arrived, document["key"], document["body"])
    except (ValueError, KeyError, TypeError) as error:
        raise VmbackupError(
            "record_invalid", "The record {} is damaged: {}.".format(path, error), "Move it out of the store."
        ) from None
