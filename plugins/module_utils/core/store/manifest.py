# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest: what a backup is, in one JSON file beside its archive.

Invariant: what to_json writes, from_json reads back equal; an unknown format is refused, unknown keys are let be, and
a missing or mistyped key is named.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Dict, Optional, Tuple

from ..errors import VmbackupError
from .fields import Fields
from .names import KINDS, parse_backup_id, plain_file_name

FORMAT = 1
CONSISTENCIES = ("application", "crash", "powered_off", "files")


@dataclass(frozen=True)
class VmIdentity:
    """Which machine. name: in the store; vsphere_name: in the inventory of vSphere."""

    name: str
    vsphere_name: str
    instance_uuid: str
    bios_uuid: str
    esx_host: str
    guest_os: str


@dataclass(frozen=True)
class FileEntry:
    """A file in the archive. size: bytes. role: disk, descriptor, configuration, nvram, log, ..."""

    name: str
    size: int
    role: str


@dataclass(frozen=True)
class Digest:
    """A file of the backup's folder. size: bytes. sha256: hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class LeftOut:
    """What the backup does not hold, and why."""

    what: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Phase:
    """A phase of the backup. start, end: UTC, ISO 8601. bytes_in, bytes_out: bytes. usage: load, when known."""

    name: str
    node: str
    start: str
    end: str
    bytes_in: int
    bytes_out: int
    usage: Optional[Dict[str, Any]] = None


@dataclass(frozen=True)
class Manifest:
    """What a backup is; docs/format.md describes each field."""

    format: int
    id: str
    kind: str
    vm: VmIdentity
    parent: Optional[str]
    base: Optional[str]
    as_of: str
    consistency: str
    snapshot: Optional[Dict[str, Any]]
    transport: str
    codec: str
    level: int
    files: Tuple[FileEntry, ...]
    archive: Digest
    tree_index: Optional[Digest]
    left_out: Tuple[LeftOut, ...]
    phases: Tuple[Phase, ...]
    collection_version: str
    changes: Optional[Dict[str, Any]] = None
    deleted: Tuple[str, ...] = ()


def to_json(manifest: Manifest) -> bytes:
    """Return a manifest as indented UTF-8 JSON with sorted keys."""
    return (json.dumps(asdict(manifest), indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode(
        "utf-8", "surrogateescape"
    )


def from_json(data: bytes) -> Manifest:
    """Read a manifest; raises manifest_format_unknown, manifest_invalid."""
    fields = Fields.parse(data)
    found = fields.number("format")
    if found != FORMAT:
        raise VmbackupError(
            "manifest_format_unknown",
            "The manifest has format {}, this version reads format {}.".format(found, FORMAT),
            "Use the version of vmbackup.esx that the manifest names as collection_version, or a newer one.",
        )
    return _checked(
        Manifest(
            format=found,
            id=fields.text("id"),
            kind=fields.text("kind"),
            vm=_vm(fields.part("vm")),
            parent=fields.optional_text("parent"),
            base=fields.optional_text("base"),
            as_of=fields.text("as_of"),
            consistency=fields.text("consistency"),
            snapshot=fields.optional_data("snapshot"),
            transport=fields.text("transport"),
            codec=fields.text("codec"),
            level=fields.number("level"),
            files=tuple(FileEntry(e.text("name"), e.number("size"), e.text("role")) for e in fields.parts("files")),
            archive=_digest(fields.part("archive")),
            tree_index=_digest(fields.part("tree_index")) if fields.has("tree_index") else None,
            left_out=tuple(LeftOut(e.text("what"), e.text("kind"), e.text("reason")) for e in fields.parts("left_out")),
            phases=tuple(_phase(e) for e in fields.parts("phases")),
            collection_version=fields.text("collection_version"),
            changes=fields.optional_data("changes"),
            deleted=fields.texts("deleted"),
        )
    )


def _vm(fields: Fields) -> VmIdentity:
    names = ("name", "vsphere_name", "instance_uuid", "bios_uuid", "esx_host", "guest_os")
    return VmIdentity(*(fields.text(name) for name in names))


def _digest(fields: Fields) -> Digest:
    sha256 = fields.text("sha256")
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise fields.invalid("sha256", "64 hexadecimal digits")
    return Digest(plain_file_name(fields.text("name")), fields.number("size"), sha256)


def _phase(fields: Fields) -> Phase:
    name, node, start, end = (fields.text(key) for key in ("name", "node", "start", "end"))
    usage = fields.optional_data("usage")
    return Phase(name, node, start, end, fields.number("bytes_in"), fields.number("bytes_out"), usage)


def _checked(manifest: Manifest) -> Manifest:
    """Hold what the fields promise together."""
    chained = manifest.parent is not None and manifest.base is not None
    unchained = manifest.parent is None and manifest.base is None
    rules = (
        (manifest.kind in KINDS and parse_backup_id(manifest.id).kind == manifest.kind, "its id and kind differ"),
        (manifest.consistency in CONSISTENCIES, "its consistency is unknown"),
        (unchained if manifest.kind == "full" else chained, "a full has no parent and base, an incremental has both"),
    )
    for holds, complaint in rules:
        if not holds:
            raise VmbackupError("manifest_invalid", "The manifest of {} is wrong: {}.".format(manifest.id, complaint))
    return manifest
