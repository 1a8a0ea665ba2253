# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest with files, everything that can happen to them, and the way back by the commands of RECOVER.txt."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.faults.runs import playbook_argv
from tests.integration.opened_backup import committed
from tests.lab.site import LabSite
from tests.tree_picture import differences, picture

AS_ROOT = os.geteuid() == 0


def grow(tree: Path) -> None:
    """Make a tree with one of everything."""
    for folder in ("etc", "srv/data", "srv/moved", "srv/gone/deep"):
        (tree / folder).mkdir(parents=True)
    for name in ("etc/kept", "etc/rewritten", "etc/hidden", "etc/mode", "srv/data/linked", "srv/moved/inside",
                 "srv/gone/deep/file", "srv/becomes_folder"):  # fmt: skip
        (tree / name).write_bytes(name.encode() * 500)
    os.link(tree / "srv/data/linked", tree / "etc/link")
    os.link(tree / "srv/moved/inside", tree / "etc/link_into_moved")
    (tree / "etc/symlink").symlink_to("kept")
    (tree / "etc/other").symlink_to("kept")


def change(tree: Path) -> None:
    """Change it in every way that has a name."""
    (tree / "etc/created").write_text("new")
    (tree / "etc/rewritten").write_text("other content, other size")
    hidden = tree / "etc/hidden"
    before = hidden.stat()
    hidden.write_bytes(b"X" * before.st_size)
    os.utime(hidden, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if nothing had been
    (tree / "etc/mode").chmod(0o4711)
    (tree / "srv/data/linked").write_text("both names see this")
    (tree / "srv/moved").rename(tree / "srv/renamed")
    shutil.rmtree(tree / "srv/gone")
    (tree / "srv/becomes_folder").unlink()
    (tree / "srv/becomes_folder").mkdir()
    (tree / "srv/becomes_folder/file").write_text("inside")
    (tree / "etc/other").unlink()
    (tree / "etc/other").symlink_to("created")
    os.mkfifo(tree / "srv/fifo")
    (tree / "srv/data" / os.fsdecode(b"not-utf8-\xff\n")).write_text("odd name")
    (tree / "srv/data" / ("long" * 50)).mkdir()
    (tree / "srv/data" / ("long" * 50) / ("er" * 100)).write_text("deep")
    with (tree / "srv/data/sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"in the middle")
    for name, seconds in (("old", -(86400 * 365 * 5)), ("far", 86400 * 365 * 100)):
        (tree / "srv" / name).write_text(name)
        os.utime(tree / "srv" / name, (seconds, seconds))
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(tree / "srv", os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{here}/socket")
        finally:
            os.close(here)
    if AS_ROOT:
        os.chown(tree / "etc/created", 12345, 3_000_000_000)
        os.setxattr(tree / "etc/created", "user.colour", b"blue\0=%")
        os.mknod(tree / "srv/device", 0o600 | 0o020000, os.makedev(1, 3))


class Guest:
    """A VM, a tree that stands for its files, and a copy of that tree to which backups are applied."""

    def __init__(self, lab: LabSite, name: str, folder: Path, **variables: Any) -> None:
        self.lab, self.name = lab, name
        self.tree, self.target = folder / "tree", folder / "target"
        grow(self.tree)
        self.restored = self.target / str(self.tree).lstrip("/")
        self.restored.parent.mkdir(parents=True)
        subprocess.run(["cp", "-a", str(self.tree), str(self.restored)], check=True)
        lab.esx["esx1"].control.create_vm(name, disks=[{"size_mb": 4, "fill_mb": 1}])
        own = {"vmbackup_baseline": True, "vmbackup_file_paths": [str(self.tree)]}
        lab.add_guest(name, "esx1", **{**own, **variables})

    def remove(self) -> None:
        self.lab.remove_guest(self.name)
        self.lab.esx["esx1"].control.destroy_vm(self.name)

    def play(self, playbook: str, *args: str, rc: int = 0) -> str:
        return play(self.lab, playbook, "--limit", self.name, *args, rc=rc)

    def full(self) -> str:
        """Return the id of its newest full."""
        return [path.name for path in committed(self.lab.store_root, self.name) if "-full-" in path.name][-1]

    def incrementals(self) -> list[Path]:
        return [path for path in committed(self.lab.store_root, self.name) if "-incremental-" in path.name]

    def apply(self, backup: Path) -> None:
        """Bring the restored tree to a backup's state by the very commands of its RECOVER.txt."""
        subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=backup, check=True)
        lines = [line.strip() for line in (backup / "RECOVER.txt").read_text().splitlines() if "TARGET" in line]
        commands = [
            line.replace("TARGET", shlex.quote(str(self.target)))
            for line in lines
            if line.startswith(("python3", "LC_ALL=C.UTF-8 tar"))
        ]
        assert len(commands) == 2
        for command in commands:
            subprocess.run(["bash", "-c", command], cwd=backup, check=True)

    def require_restored(self) -> None:
        live = picture(self.tree)
        socket_name = b"srv/socket"
        live.pop(socket_name, None)
        assert differences(live, picture(self.restored)) == {}


def play(lab: LabSite, playbook: str, *args: str, rc: int = 0) -> str:
    """Run a playbook to its end, as ansible-playbook does; return what it said."""
    argv = playbook_argv(playbook, args=args)
    env = {**os.environ, **lab.environment}
    done = subprocess.run(
        argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == rc, done.stdout + done.stderr
    return done.stdout + done.stderr
