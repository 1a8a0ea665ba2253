# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup in the store as a person without this collection sees it: folders, plain tools, JSON."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote


def committed(root: Path, vm: str) -> list[Path]:
    """Return the committed backups of a VM, oldest first."""
    folder = root / quote(vm, safe="")
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []


def incoming(root: Path, vm: str) -> list[str]:
    """Return what lies uncommitted, by name."""
    folder = root / quote(vm, safe="") / ".incoming"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def manifest(backup: Path) -> dict[str, Any]:
    return dict(json.loads((backup / "manifest.json").read_text()))


def unpack(backup: Path, to: Path) -> Path:
    """Check and unpack with plain tools only."""
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=backup, check=True)
    subprocess.run(["gzip", "-t", str(backup / "archive.tar.gz")], check=True)
    to.mkdir(exist_ok=True)
    subprocess.run(["tar", "xzf", str(backup / "archive.tar.gz"), "-C", str(to)], check=True)
    return to


def disk_digests(folder: Path) -> list[str]:
    """Return the SHA-256 of every flat extent, sorted."""
    return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*-flat.vmdk"))
