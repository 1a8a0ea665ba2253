# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the checks keep their things: outside the checkout, one folder for each checkout.

Invariant: nothing that the checks make lies in the checkout, so a checkout is only sources.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
REQUIREMENTS = CHECKOUT / "tests"
CACHE = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    / "vmbackup-esx"
    / hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:12]
)
# A tree in which the checkout is the collection, for everything that imports or runs it.
LINKS = CACHE / "links"
# A true copy, for tools that refuse a symlink.
COPIES = CACHE / "copy"
COPY = COPIES / "ansible_collections" / "vmbackup" / "esx"
MAIN_PYTHON = "{}.{}".format(*sys.version_info[:2])


def venv(name: str) -> Path:
    """Return the folder of the environment of that name."""
    return CACHE / "venv" / name


def link_checkout(root: Path = LINKS, source: Path = CHECKOUT) -> None:
    """Make the tree in which `source` is ansible_collections/vmbackup/esx."""
    place = root / "ansible_collections" / "vmbackup" / "esx"
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink() and Path(os.readlink(place)) != source:
        place.unlink()
    if not place.is_symlink():
        place.symlink_to(source)


def copy_checkout() -> None:
    """Copy the sources as git sees them (tracked and new, not ignored) to COPY."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=CHECKOUT, check=True, capture_output=True).stdout.split(b"\0")
    shutil.rmtree(COPY, ignore_errors=True)
    for name in filter(None, names):
        source, target = CHECKOUT / os.fsdecode(name), COPY / os.fsdecode(name)
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def environment(*, venv_name: str = "main", collections: Path = LINKS) -> dict[str, str]:
    """Return the environment for a command: that venv first, that collection tree."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "VMWARE_"))}
    paths = [str(venv(venv_name) / "bin"), env.get("PATH", ""), "/usr/sbin", "/sbin"]
    env["PATH"] = os.pathsep.join(paths)
    env["ANSIBLE_COLLECTIONS_PATH"] = str(collections)
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    # Ansible refuses to start without a UTF-8 locale; a bare container has only this one.
    env["LC_ALL"] = "C.UTF-8"
    env.pop("VIRTUAL_ENV", None)
    return env
