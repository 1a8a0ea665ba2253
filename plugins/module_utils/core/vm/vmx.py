# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The .vmx as data: an ordered dictionary of `key = "value"` lines.

Invariant: a line that is not changed keeps its bytes; unknown lines and their order stay.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, replace
from typing import Callable, Dict, Iterable, List, Optional, Sequence, Tuple

from ..errors import VmbackupError

_LINE = re.compile(r'^[ \t]*([^\s=#"][^=]*?)[ \t]*=[ \t]*(?:"(.*)"|([^"]*?))[ \t]*$', re.DOTALL)
_ESCAPED = re.compile(r"\|([0-9A-Fa-f]{2})")
_TO_ESCAPE = re.compile(r'[\x00-\x1f"|\x7f]')
_LINK = re.compile(r"-[0-9]{6}\.vmdk$", re.IGNORECASE)
_NODE = re.compile(r"^((?:scsi|sata|nvme|ide)[0-9]+:[0-9]+)\.", re.IGNORECASE)


@dataclass(frozen=True)
class VmxLine:
    """raw: the bytes with the line's end. key: empty for a line that is no setting. value: unescaped."""

    raw: bytes
    key: str = ""
    value: str = ""


@dataclass(frozen=True)
class Vmx:
    """A parsed .vmx. Keys are found whatever their case, as VMware does. codec: a Python codec."""

    lines: Tuple[VmxLine, ...]
    codec: str
    line_end: bytes

    def get(self, key: str) -> Optional[str]:
        """Return a setting's value; of several, the last one."""
        found = [line.value for line in self.lines if line.key.lower() == key.lower()]
        return found[-1] if found else None

    def set(self, key: str, value: str) -> Vmx:
        """Return it with one setting changed in place, or added at the end; raises vmx_encoding."""
        line = self._line(key, value)
        if self.get(key) is None:
            return replace(self, lines=_ended(self.lines, self.line_end) + (line,))
        return replace(self, lines=tuple(line if each.key.lower() == key.lower() else each for each in self.lines))

    def without(self, unwanted: Callable[[str], bool]) -> Vmx:
        """Return it without the settings whose key, in lower case, is unwanted."""
        return replace(self, lines=tuple(each for each in self.lines if not each.key or not unwanted(each.key.lower())))

    def render(self) -> bytes:
        """Return the file's bytes."""
        return b"".join(line.raw for line in self.lines)

    def _line(self, key: str, value: str) -> VmxLine:
        text = '{} = "{}"'.format(key, _TO_ESCAPE.sub(lambda match: "|{:02X}".format(ord(match.group())), value))
        try:
            return VmxLine(text.encode(self.codec, "surrogateescape") + self.line_end, key, value)
        except UnicodeEncodeError as error:
            raise VmbackupError(
                "vmx_encoding",
                "The .vmx is in {}, which cannot hold {} = {!r}.".format(self.codec, key, value),
                "Rename the disk to a name in that encoding.",
            ) from error


def parse_vmx(data: bytes) -> Vmx:
    """Parse a .vmx; never fails, because what is not a setting is kept as it is.

    Source of the escapes (`|22` for a quote) and of `.encoding`: files written by ESX 6.7 and 7.0.
    """
    codec = _codec_of(data)
    lines = tuple(_parse_line(raw, codec) for raw in re.findall(rb"[^\n]*\n|[^\n]+\Z", data))
    return Vmx(lines, codec, b"\r\n" if b"\r\n" in data else b"\n")


def _codec_of(data: bytes) -> str:
    match = re.search(rb'(?im)^[ \t]*\.encoding[ \t]*=[ \t]*"?([A-Za-z0-9_.:-]+)', data)
    name = match.group(1).decode("ascii") if match else "utf-8"
    try:
        known = codecs.lookup(name)
        if "=".encode(known.name) == b"=" and b"\n".decode(known.name) == "\n":  # lines are split as bytes
            return known.name
    except (LookupError, UnicodeError, TypeError, AttributeError):
        pass
    return "utf-8"


def _parse_line(raw: bytes, codec: str) -> VmxLine:
    text = raw.rstrip(b"\r\n").decode(codec, "surrogateescape")
    match = _LINE.match(text)
    if not match:
        return VmxLine(raw)
    value = match.group(2) if match.group(2) is not None else match.group(3)
    return VmxLine(raw, match.group(1), _ESCAPED.sub(lambda code: chr(int(code.group(1), 16)), value))


def _ended(lines: Tuple[VmxLine, ...], line_end: bytes) -> Tuple[VmxLine, ...]:
    if not lines or lines[-1].raw.endswith(b"\n"):
        return lines
    return lines[:-1] + (replace(lines[-1], raw=lines[-1].raw + line_end),)


@dataclass(frozen=True)
class ArchivedDisk:
    """A disk that the archive holds. node: such as scsi0:1. descriptor: its file's name in the archive."""

    node: str
    descriptor: str


def rewrite_for_archive(
    vmx: Vmx, disks: Sequence[ArchivedDisk], left_out: Iterable[str]
) -> Tuple[Vmx, Tuple[Tuple[str, str], ...]]:
    """Return the .vmx that starts from the archive's own disks, and what was dropped from it as (key, reason).

    left_out: nodes of disks that the archive does not hold; their settings go, so that they are not required.
    Raises vmx_disk_missing, vmx_disk_unknown: the .vmx and the VM's hardware tell different stories.
    """
    absent = _absent(vmx)
    reasons = _reasons(vmx, {node.lower() for node in left_out}, absent)
    known = absent.union(disk.node.lower() for disk in disks)
    for line in vmx.lines:
        _check_disk(line, known, reasons)
    dropped = tuple((line.key, reasons[line.key.lower()]) for line in vmx.lines if line.key.lower() in reasons)
    vmx = vmx.without(lambda key: key in reasons)
    for disk in disks:
        key = _fitting_key(vmx, disk.node + ".fileName")
        vmx = vmx.set(key, disk.descriptor)
    if vmx.get("checkpoint.vmState"):
        key = _fitting_key(vmx, "checkpoint.vmState")
        dropped += ((key, "the memory state is not in the backup"),)
        vmx = vmx.set(key, "")
    return vmx, dropped


def _absent(vmx: Vmx) -> "set[str]":
    """Return the nodes whose device is not present."""
    return {
        match.group(1).lower()
        for line in vmx.lines
        for match in [_NODE.match(line.key)]
        if match and (vmx.get(match.group(1) + ".present") or "").upper() == "FALSE"
    }


def _reasons(vmx: Vmx, left_out: "set[str]", absent: "set[str]") -> Dict[str, str]:
    """Tell for each setting that is dropped, in lower case, why."""
    reasons: Dict[str, str] = {}
    for key in [line.key.lower() for line in vmx.lines if line.key]:
        match = _NODE.match(key)
        if match and match.group(1) in left_out:
            reasons[key] = "the disk is not in the backup"
        elif match and match.group(1) in absent and _LINK.search(vmx.get(key) or ""):
            reasons[key] = "the device is not present and names a snapshot's disk"
        elif key == "ctkenabled" or (match and key.endswith(".ctkenabled")):
            reasons[key] = "changed-block tracking starts anew after a restore"
    return reasons


def _check_disk(line: VmxLine, known: "set[str]", reasons: Dict[str, str]) -> None:
    key = line.key.lower()
    match = _NODE.match(key)
    if key in reasons or not match or match.group(1) in known or not key.endswith(".filename"):
        return
    if line.value.lower().endswith(".vmdk"):
        raise VmbackupError(
            "vmx_disk_unknown",
            "The .vmx names {} as {}, which the VM's hardware does not list.".format(line.value, match.group(1)),
            "Look at the VM's settings: the .vmx was changed by hand or while it was read.",
        )


def _fitting_key(vmx: Vmx, key: str) -> str:
    spelled: List[str] = [line.key for line in vmx.lines if line.key.lower() == key.lower()]
    if not spelled:
        raise VmbackupError(
            "vmx_disk_missing",
            "The .vmx has no {}, though the VM's hardware lists that disk.".format(key),
            "Run the backup again when the VM's settings are not being changed.",
        )
    return spelled[-1]
