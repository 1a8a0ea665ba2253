# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A realistic disk image: an ext4 file system, two fifths empty, the rest this machine's programs and documents.

A fifth of the content does not compress, as pictures, films and packages do not.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

PROGRAMS = 930 << 20
INCOMPRESSIBLE = 290 << 20
SIZE = 2560 << 20


def make_image(cache: Path) -> Path:
    """Return the image in `cache`, making it once."""
    image = cache / "disk.img"
    if not image.exists():
        cache.mkdir(parents=True, exist_ok=True)
        tree, unfinished = cache / "tree", cache / "disk.part"
        try:
            _collect(tree)
            unfinished.unlink(missing_ok=True)
            subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, unfinished, f"{SIZE >> 20}M"], check=True)
        finally:
            shutil.rmtree(tree, ignore_errors=True)
        unfinished.rename(image)
    return image


def _collect(tree: Path) -> None:
    """Copy folders of /usr until there is enough; add what does not compress."""
    tree.mkdir(exist_ok=True)
    chance = random.Random(1)
    with (tree / "film.mkv").open("wb") as film:
        for _megabyte in range(INCOMPRESSIBLE >> 20):
            film.write(chance.randbytes(1 << 20))
    total = 0
    folders = [Path("/usr/bin"), *sorted(Path("/usr/share").iterdir()), *sorted(Path("/usr/lib").iterdir())]
    for folder in folders:
        size = int(subprocess.run(["du", "-sb", folder], capture_output=True, check=False).stdout.split()[0])
        if total + size <= PROGRAMS:
            place = tree / folder.parent.name
            place.mkdir(exist_ok=True)
            subprocess.run(["cp", "-a", folder, place], check=True)
            total += size
