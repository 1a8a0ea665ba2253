# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disk images with real file systems for the lab's guests, made without mounting and without root."""

from __future__ import annotations

import random
import subprocess
import tempfile
from pathlib import Path


def ext4_image(path: Path, size_mb: int, seed: int = 1) -> Path:
    """Make an ext4 image at `path` that holds a small tree: text, random data, a nested folder, a link.

    size_mb: MiB, at least 8. seed: another seed gives other content.
    """
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        (tree / "etc").mkdir()
        (tree / "etc" / "hostname").write_text("guest{}\n".format(seed))
        (tree / "home" / "anna").mkdir(parents=True)
        for number in range(20):
            (tree / "home" / "anna" / "notes{}.txt".format(number)).write_text("line\n" * chance.randrange(1, 5000))
        (tree / "photo.raw").write_bytes(chance.randbytes(size_mb * 1024 * 1024 // 4))
        (tree / "latest").symlink_to("photo.raw")
        with path.open("wb") as image:
            image.truncate(size_mb * 1024 * 1024)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", folder, str(path)], check=True)
    return path
