# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network namespace with one link to this machine, which can be cut or slowed.

Invariant: names and addresses follow from the lab's folder, so that a later run finds and removes what a crash left.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

PREFIX = "vmb"


def can_make_namespaces() -> bool:
    """Tell whether this user may make network namespaces (root with the right to; containers often lack it)."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    probe = f"{PREFIX}probe{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode != 0:
        return False
    _ip("netns", "delete", probe)
    return True


class Namespace:
    """One namespace; `address` is the far side's, seen from this machine."""

    def __init__(self, folder: Path, label: str) -> None:
        digest = hashlib.sha256(f"{folder}:{label}".encode()).digest()
        self.name = f"{PREFIX}{digest.hex()[:8]}"
        self._near, self._far = f"{self.name}n", f"{self.name}f"
        # 198.18.0.0/15 is set aside for benchmarks (RFC 2544); a /30 of it for each link.
        block = int.from_bytes(digest[8:12], "big") % (1 << 15)
        base = (198 << 24) + (18 << 16) + block * 4
        self.near_address, self.address = _dotted(base + 1), _dotted(base + 2)
        self._joins: list[tuple[str, str]] = []  # further links of its own: device, address on the other side

    def create(self) -> None:
        """Make the namespace and its link; what a crash left is removed first."""
        self.remove()
        _ip("netns", "add", self.name)
        _ip("link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self.name)
        _ip("address", "add", f"{self.near_address}/30", "dev", self._near)
        _ip("link", "set", self._near, "up")
        _ip("-n", self.name, "address", "add", f"{self.address}/30", "dev", self._far)
        _ip("-n", self.name, "link", "set", "lo", "up")
        self.restore()

    def inside(self, *argv: str) -> list[str]:
        """Return the command that runs argv in the namespace."""
        return ["ip", "netns", "exec", self.name, *argv]

    def join(self, other: Namespace) -> None:
        """Lay a link of their own between two namespaces, so that they reach one another by their addresses."""
        device, peer = f"{self.name}j", f"{other.name}j"
        _ip("-n", self.name, "link", "add", device, "type", "veth", "peer", "name", peer, "netns", other.name)
        self._joins.append((device, other.address))
        other._joins.append((peer, self.address))
        self.restore()
        other.restore()

    def cut(self) -> None:
        """Pull the cables on the far side: packets vanish, nobody is told."""
        for device in (self._far, *(device for device, _address in self._joins)):
            _ip("-n", self.name, "link", "set", device, "down")

    def part(self, other: Namespace) -> None:
        """Pull the cable between the two; `restore` plugs it in again."""
        for device, address in self._joins:
            if address == other.address:
                _ip("-n", self.name, "link", "set", device, "down")

    def restore(self) -> None:
        _ip("-n", self.name, "link", "set", self._far, "up")
        for device, address in self._joins:
            _ip("-n", self.name, "link", "set", device, "up")
            _ip("-n", self.name, "route", "replace", f"{address}/32", "dev", device, "src", self.address)

    def slow(self, rate: str | None) -> None:
        """Limit what is sent into the namespace, such as "10mbit"; None lifts the limit."""
        subprocess.run(["tc", "qdisc", "del", "dev", self._near, "root"], capture_output=True, check=False)
        if rate:
            shape = ["tbf", "rate", rate, "burst", "64kb", "latency", "400ms"]
            subprocess.run(["tc", "qdisc", "add", "dev", self._near, "root", *shape], check=True)

    def remove(self) -> None:
        """Remove the namespace and its link; do nothing where they are not."""
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "delete", self._near], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def _dotted(number: int) -> str:
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))
