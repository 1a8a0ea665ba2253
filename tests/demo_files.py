# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's part on files: a guest's folder, a morning's work in it, and the proof that the incremental holds just that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from .tree_picture import differences, picture


class GuestFolder:
    """A folder of a guest with files of its users. folder: where it and a copy of its first state are kept."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "home"
        self._target = folder / "restored"
        self._before = self._target / str(self.path).lstrip("/")
        for user in ("anna", "bert"):
            (self.path / user / "letters").mkdir(parents=True)
            for number in range(200):
                (self.path / user / "letters" / f"{number:03}.txt").write_text(f"Dear {user},\n" * (number + 1))

    def work(self) -> None:
        """Do what users do between two backups; the state before is kept for `matches`."""
        self._before.parent.mkdir(parents=True)
        subprocess.run(["cp", "-a", str(self.path), str(self._before)], check=True)
        anna, bert = self.path / "anna", self.path / "bert"
        (anna / "report.txt").write_text("Written this morning.\n")
        letter = anna / "letters" / "007.txt"
        old = letter.stat()
        letter.write_bytes(letter.read_bytes().replace(b"Dear", b"dear"))
        os.utime(letter, ns=(old.st_atime_ns, old.st_mtime_ns))  # same size, same time: only ctime tells
        (anna / "letters" / "100.txt").unlink()
        (bert / "letters").rename(bert / "archive")

    def matches(self, backup: Path) -> bool:
        """Tell whether the state before, less what the backup lists as deleted and with its files over it, is the folder."""
        for name in json.loads((backup / "manifest.json").read_text())["deleted"]:
            gone = self._target / name
            shutil.rmtree(gone) if name.endswith("/") else gone.unlink()
        subprocess.run(["tar", "xzf", str(backup / "archive.tar.gz"), "-C", str(self._target)], check=True)
        return differences(picture(self.path), picture(self._before)) == {}
