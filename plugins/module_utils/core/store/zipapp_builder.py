# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the receiver: one zipapp of this collection's own modules, for Python 3.8 and its standard library.

Invariant: equal sources give equal bytes on every host (fixed order, no times, no compression), so that installing it
twice changes nothing.
"""

from __future__ import annotations

import importlib
import io
import zipfile
from pathlib import Path
from typing import Any

from ..errors import VmbackupError
from .serve import main  # Ansible ships what is imported, so the whole receiver comes along

_CORE = __name__.rsplit(".", 2)[0]
RECEIVER_MODULES = (
    "errors",
    "store.accounts",
    "store.checksums",
    "store.commit",
    "store.durable",
    "store.fields",
    "store.folder",
    "store.grants",
    "store.incoming",
    "store.layout",
    "store.lineage",
    "store.manifest",
    "store.names",
    "store.receiver",
    "store.records",
    "store.recover",
    "store.serve",
    "store.wire",
    "store.writer_lock",
)
_MAIN = "from vmbackup_core.store.serve import {0}\n\nraise SystemExit({0}())\n".format(main.__name__)
_THE_EPOCH_OF_ZIP = (1980, 1, 1, 0, 0, 0)


def build_receiver() -> bytes:
    """Return the bytes of receiver.pyz; raises receiver_source_missing."""
    files = {"__main__.py": _MAIN, "vmbackup_core/__init__.py": "", "vmbackup_core/store/__init__.py": ""}
    for name in RECEIVER_MODULES:
        files["vmbackup_core/{}.py".format(name.replace(".", "/"))] = _source(name)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path, _THE_EPOCH_OF_ZIP)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[path].encode())
    return buffer.getvalue()


def _source(name: str) -> str:
    """Return a module's source, from a folder or from the zip that Ansible runs a module in."""
    module = importlib.import_module("{}.{}".format(_CORE, name))
    path = Path(module.__file__ or "")
    if path.is_file():
        return path.read_text(encoding="utf-8")
    loader: Any = module.__loader__
    source = loader.get_source(module.__name__) if hasattr(loader, "get_source") else None
    if not isinstance(source, str):
        raise VmbackupError("receiver_source_missing", "The source of {} is not at hand.".format(name))
    return source
