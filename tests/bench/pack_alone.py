# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack one file by the core alone, in a process of its own: `pack_alone.py FILE ARCHIVE CODEC`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugins" / "module_utils"))

from core.archive.codecs import choose_codec
from core.archive.sources import FileSource
from core.archive.writer import ArchiveWriter


def main(path: str, archive: str, codec: str) -> None:
    """Pack `path` into `archive`."""
    scratch = str(Path(archive).parent)
    with Path(archive).open("wb") as sink, FileSource(path) as source:
        writer = ArchiveWriter(sink, codec=choose_codec(codec), scratch=scratch)
        writer.add_source(Path(path).name, source, mtime=0)
        writer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
