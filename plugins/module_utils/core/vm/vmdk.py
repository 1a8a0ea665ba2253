# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMDK descriptors: reading those of ESX, writing ours.

Invariant: a descriptor that is not understood in full raises; ours describes one flat extent without a parent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, Mapping, Optional, Tuple

from ..errors import VmbackupError

SECTOR = 512
LARGEST_DESCRIPTOR = 1 << 20
NO_PARENT = "ffffffff"
_EXTENT = re.compile(
    r'^(RW|RDONLY|NOACCESS)\s+([0-9]{1,18})\s+([A-Z]+)(?:\s+"([^"]*)"(?:\s+([0-9]{1,18}))?)?(?:\s.*)?$'
)
_FIELD = re.compile(r'^([A-Za-z][A-Za-z0-9_.]*)\s*=\s*(?:"(.*)"|([^"]*))$')


@dataclass(frozen=True)
class Extent:
    """A part of a disk. size: bytes. kind: VMFS, VMFSSPARSE, SESPARSE, FLAT, ... name: file beside the descriptor."""

    access: str
    size: int
    kind: str
    name: str
    offset: int


@dataclass(frozen=True)
class Descriptor:
    """A parsed descriptor. parent: the parent's file, None for a base. fields: every setting, keys in lower case."""

    create_type: str
    cid: str
    parent_cid: str
    parent: Optional[str]
    extents: Tuple[Extent, ...]
    fields: Mapping[str, str]

    @property
    def capacity(self) -> int:
        """Bytes of the disk."""
        return sum(extent.size for extent in self.extents)


def parse_descriptor(data: bytes, what: str) -> Descriptor:
    """Parse a descriptor file.

    what: the file, for messages. Raises descriptor_invalid.
    Source: VMware, Virtual Disk Format 1.1 and 5.0, "The Descriptor File"; block/vmdk.c of QEMU.
    """
    if len(data) > LARGEST_DESCRIPTOR or not data.lstrip().startswith(b"# Disk DescriptorFile"):
        raise _invalid(what, "it does not start with '# Disk DescriptorFile'")
    fields: Dict[str, str] = {}
    extents = []
    for line in _text(data, what).splitlines():
        line = line.strip().rstrip("\x00")
        extent, field = _EXTENT.match(line), _FIELD.match(line)
        if extent:
            extents.append(_extent(extent))
        elif field:
            fields[field.group(1).lower()] = field.group(2) if field.group(2) is not None else field.group(3).strip()
        elif line and not line.startswith("#"):
            raise _invalid(what, "a line is not understood: {!r}".format(line[:80]))
    if not extents or "createtype" not in fields or "cid" not in fields:
        raise _invalid(what, "it lacks createType, CID or an extent")
    return Descriptor(
        fields["createtype"],
        fields["cid"].lower(),
        fields.get("parentcid", NO_PARENT).lower(),
        fields.get("parentfilenamehint"),
        tuple(extents),
        fields,
    )


def _text(data: bytes, what: str) -> str:
    match = re.search(rb'(?im)^encoding\s*=\s*"?([A-Za-z0-9_-]+)', data)
    name = match.group(1).decode("ascii") if match else "utf-8"
    try:
        return data.decode(name)
    except (LookupError, UnicodeError) as error:
        raise _invalid(what, "its encoding is not understood: {}".format(error)) from error


def _extent(match: "re.Match[str]") -> Extent:
    access, sectors, kind, name, offset = match.groups()
    return Extent(access, int(sectors) * SECTOR, kind, name or "", int(offset or 0) * SECTOR)


def _invalid(what: str, cause: str) -> VmbackupError:
    return VmbackupError(
        "descriptor_invalid",
        "The disk descriptor {} is not valid: {}.".format(what, cause),
        "Check the disk with `vmkfstools -x check` on the ESX host, or leave it out by exclude_disks.",
    )


def render_descriptor(flat_name: str, capacity: int, *, adapter: str, uuid: str, thin: bool) -> bytes:
    """Write the descriptor of a flat disk.

    flat_name: of the extent beside it. capacity: bytes, whole sectors. adapter: ide, buslogic or lsilogic (the
    format knows no other names for scsi, sata and nvme). uuid: as vSphere tells it, or empty.
    Source: as of parse_descriptor; the geometry is what vmkfstools writes.
    """
    heads, sectors = _geometry(capacity, adapter)
    cylinders = capacity // SECTOR // (heads * sectors)
    lines = [
        "# Disk DescriptorFile",
        "version=1",
        'encoding="UTF-8"',
        "CID=fffffffe",
        "parentCID=" + NO_PARENT,
        'createType="vmfs"',
        "",
        "# Extent description",
        'RW {} VMFS "{}"'.format(capacity // SECTOR, flat_name),
        "",
        "# The Disk Data Base",
        "#DDB",
        "",
        'ddb.adapterType = "{}"'.format(adapter),
        'ddb.geometry.cylinders = "{}"'.format(min(cylinders, 16383) if adapter == "ide" else cylinders),
        'ddb.geometry.heads = "{}"'.format(heads),
        'ddb.geometry.sectors = "{}"'.format(sectors),
    ]
    if thin:
        lines.append('ddb.thinProvisioned = "1"')
    if _spaced(uuid):
        lines.append('ddb.uuid = "{}"'.format(_spaced(uuid)))
    lines.append('ddb.virtualHWVersion = "8"')
    return ("\n".join(lines) + "\n").encode("utf-8")


def _geometry(capacity: int, adapter: str) -> Tuple[int, int]:
    if adapter == "ide":
        return 16, 63
    if capacity < 1 << 30:
        return 64, 32
    return (128, 32) if capacity < 1 << 31 else (255, 63)


def _spaced(uuid: str) -> str:
    """Turn 6000C293-0000-... into the form of a descriptor: `60 00 C2 93 .. .. .. ..-.. .. ..`."""
    digits = re.sub(r"[\s-]", "", uuid)
    if not re.match(r"^[0-9A-Fa-f]{32}$", digits):
        return ""
    pairs = [digits[i : i + 2] for i in range(0, 32, 2)]
    return " ".join(pairs[:8]) + "-" + " ".join(pairs[8:])
