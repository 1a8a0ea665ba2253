# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tree that is packed and unpacked by real tools, and what must be equal of both."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any, List, NamedTuple

from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.codecs import choose_codec
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.writer import ArchiveWriter
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.pack import PackedTree, pack_changes
from tests.tree_picture import differences, picture

UNPACK = (
    "--acls",
    "--xattrs",
    "--xattrs-include=*",
    "--numeric-owner",
    "--anchored",
    "--exclude=.vmbackup/members.idx",
)


class Found(NamedTuple):
    path: bytes
    kind: str = "created"
    is_folder: bool = False


class Packer:
    """A tree to fill, and what becomes of it."""

    def __init__(self, folder: Path) -> None:
        self.tree, self.out, self.archive = folder / "tree", folder / "out", folder / "archive.tar.gz"
        self.scratch = folder / "scratch"
        for path in (self.tree, self.out, self.scratch):
            path.mkdir()

    def pack(self, **options: Any) -> PackedTree:
        """Pack all there is, in the order of a scan."""
        with self.archive.open("wb") as sink, ArchiveWriter(
            sink, codec=choose_codec("zlib"), scratch=str(self.scratch), threads=2
        ) as writer:
            packed = pack_changes(
                [Found(path, "created", self.is_folder(path)) for path in below(os.fsencode(self.tree))],
                writer,
                scratch=str(self.scratch),
                root=str(self.tree),
                **options,
            )
            writer.close()
        return packed

    def is_folder(self, path: bytes) -> bool:
        return stat.S_ISDIR(os.lstat(os.path.join(os.fsencode(self.tree), path)).st_mode)

    def unpack(self) -> Path:
        subprocess.run(["tar", "xzf", str(self.archive), "-C", str(self.out), *UNPACK], check=True)
        return self.out


def below(root: bytes) -> List[bytes]:
    """Return the paths below a folder as a scan has them: a folder, what is in it but folders, then each of those."""
    paths, folders = [], [b""]
    while folders:
        folder = folders.pop()
        with os.scandir(os.path.join(root, folder)) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        paths += [
            folder,
            *(os.path.join(folder, each.name) for each in found if not each.is_dir(follow_symlinks=False)),
        ]
        deeper = [os.path.join(folder, each.name) for each in found if each.is_dir(follow_symlinks=False)]
        folders += reversed(deeper)
    return paths


def compare(packer: Packer, *gone: str) -> None:
    """Unpack, and require the tree as it is, but for what is gone."""
    wanted = picture(packer.tree)
    for name in gone:
        del wanted[os.fsencode(name)]
    assert differences(wanted, picture(packer.unpack())) == {}
