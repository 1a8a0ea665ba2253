# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Optional, Tuple

from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.manifest_of_files import deleted_paths
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.pack import SOCKET, VANISHED, Note, PackedTree
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.rules import ScanRules
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.survey import survey


def look(folder: Path, old: Optional[str], new: str, exclude: Tuple[str, ...] = ()) -> Any:
    rules = ScanRules((str(folder / "tree"),), exclude)
    info = {"vm": "v", "backup_id": ""}
    return survey(rules, old, new, str(folder / "changes"), info, time.time_ns())


def test_what_is_gone_or_vanished_is_listed_and_what_is_merely_left_out_is_not(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "gone" / "deep").mkdir(parents=True)
    for name in ("gone/deep/file", "file", "unwanted"):
        (tree / name).write_text(name)
    (tree / "hidden").mkdir()
    (tree / "hidden" / "file").write_text("hidden")
    first, second = str(tmp_path / "1.idx"), str(tmp_path / "2.idx")
    look(tmp_path, None, first)
    (tree / "gone" / "deep" / "file").unlink()
    (tree / "gone" / "deep").rmdir()
    (tree / "gone").rmdir()
    (tree / "file").unlink()
    found = look(tmp_path, first, second, ("unwanted", "hidden/"))
    vanished = Note(os.fsencode(tree / "changed")[1:], VANISHED, "gone since the scan")
    socket = Note(os.fsencode(tree / "socket")[1:], SOCKET, "a socket has no content")
    packed = PackedTree(0, 0, (vanished, socket), ())
    names = {name.rpartition("tree/")[2] for name in deleted_paths(found, packed)}
    assert names == {"gone/", "file", "changed"}
