# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Staged backups to send, made without a VM, and the lab's store to send them to."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.folder import StoreTree
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.link import StoreAddress
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.manifest import (
    Digest,
    FileEntry,
    Manifest,
    VmIdentity,
)
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.names import new_backup_id
from tests.lab.site import LabSite

NOW = "2026-11-22T01:00:00Z"


def noise(size: int, seed: int = 1) -> bytes:
    """Return bytes that only the seed decides."""
    return random.Random(seed).randbytes(size)


def fresh_id(kind: str = "full") -> str:
    return new_backup_id(datetime.now(timezone.utc), kind, os.urandom(3).hex())


def manifest_of(vm: str, backup_id: str, archive: bytes, parent: str | None = None) -> Manifest:
    kind = backup_id.split("-")[1]
    return Manifest(
        format=1,
        id=backup_id,
        kind=kind,
        vm=VmIdentity(vm, vm, f"uuid of {vm}", "bios", "esx1", "debian12"),
        parent=parent,
        base=parent,
        as_of=NOW,
        consistency="crash" if kind == "full" else "files",
        snapshot=None,
        transport="datastore",
        codec="zlib",
        level=1,
        files=(FileEntry("disk.vmdk", 512, "descriptor"),),
        archive=Digest("archive.tar.gz", len(archive), hashlib.sha256(archive).hexdigest()),
        tree_index=None,
        left_out=(),
        phases=(),
        collection_version="1.0.0",
    )


def stage(root: Path, vm: str, archive: bytes, backup_id: str = "", parent: str | None = None) -> Path:
    """Stage a backup as Phase I does; return its folder."""
    backup_id = backup_id or fresh_id()
    with StoreTree(str(root)).incoming(vm, backup_id) as growing:
        growing.write("archive.tar.gz", archive)
        return Path(growing.commit(manifest_of(vm, backup_id, archive, parent), verify=False))


def size_of(folder: Path) -> int:
    """Return the bytes of a backup's files."""
    return sum(path.stat().st_size for path in folder.iterdir())


def lab_store(lab: LabSite, **changes: Any) -> StoreAddress:
    """Return the address of the lab's store, with the mover's key."""
    known = {
        "host": lab.store.address,
        "port": lab.store.port,
        "user": lab.store.user,
        "key_file": str(lab.folder / "keys" / "mover"),
        "known_hosts": str(lab.folder / "known_hosts"),
    }
    return StoreAddress(**{**known, **changes})


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def arrived(store_root: Path, vm: str, backup_id: str) -> int:
    """Return the bytes of a growing backup's archive in a store."""
    archive = store_root / vm / ".incoming" / backup_id / "archive.tar.gz"
    return archive.stat().st_size if archive.exists() else 0


def run_module(name: str, arguments: dict[str, Any], *options: str) -> dict[str, Any]:
    """Run a module on this machine through ansible; return its result."""
    argv = [str(Path(sys.executable).with_name("ansible")), "localhost", "-m", f"vmbackup.esx.{name}",
            "-a", json.dumps(arguments), "-e", f"ansible_python_interpreter={sys.executable}", *options]  # fmt: skip
    env = {**os.environ, "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1", "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.oneline"}
    env.update({"ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "False"})
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert "=> {" in done.stdout, done.stdout + done.stderr
    return dict(json.loads(done.stdout.partition("=> ")[2]))
