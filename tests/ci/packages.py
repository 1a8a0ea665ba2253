# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Debian packages that the lab and the checks need, known by what they bring."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
# The program or the path that a package brings, and the package.
NEEDED = {
    "go": "golang-go",
    "/usr/share/gocode/src/github.com/vmware/govmomi": "golang-github-vmware-govmomi-dev",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
    "ip": "iproute2",
    "pkill": "procps",
    "busybox": "busybox",
    "mke2fs": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "qemu-img": "qemu-utils",
    "bsdtar": "libarchive-tools",
    "7z": "p7zip-full",
    "pigz": "pigz",
    "zstd": "zstd",
    "igzip": "isal",
    "rsync": "rsync",
    "restic": "restic",
    "borg": "borgbackup",
    "/usr/bin/time": "time",
}


def missing_packages() -> list[str]:
    """Return the packages whose program or path is not on this machine."""
    missing = [package for thing, package in NEEDED.items() if not _is_there(thing)]
    if importlib.util.find_spec("ensurepip") is None:
        missing.append("python3-venv")
    return missing


def install_packages() -> None:
    """Install what is missing as root; else name the one command that does, and stop."""
    missing = missing_packages()
    if not missing:
        return
    command = "apt-get install --yes --no-install-recommends " + " ".join(missing)
    if shutil.which("apt-get") is None:
        sys.exit(
            "Missing: this machine has no apt-get; install what brings these Debian packages: " + " ".join(missing)
        )
    if os.geteuid() != 0:
        sys.exit(
            f"Missing Debian packages. Install them, then run this again:\n  sudo sh -c 'apt-get update && {command}'"
        )
    print(f"Installing Debian packages: {' '.join(missing)}", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for argv in (["apt-get", "update", "-qq"], [*command.split(), "-qq"]):
        done = subprocess.run(argv, env=env, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(argv)} failed:\n{done.stdout}")
    still = missing_packages()
    if still:
        sys.exit("Still missing after the installation: " + " ".join(still))


def _is_there(thing: str) -> bool:
    return Path(thing).exists() if thing.startswith("/") else shutil.which(thing, path=PATH) is not None
