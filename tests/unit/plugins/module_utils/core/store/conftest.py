# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups to send, and stores to send them to."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, List

import pytest

# The collection is imported inside the fixtures: pytest-ansible makes it importable only after this file was read.
STORE = "ansible_collections.vmbackup.esx.plugins.module_utils.core.store."


def _of(module: str) -> Any:
    return importlib.import_module(STORE + module)


IDENTITY = ("web 01", "Web 01 (prod)", "5029c440-85ee-c2a1-e9dd-b63e39364603", "42-bios", "esx1", "debian12")


@pytest.fixture
def new_id() -> Callable[..., str]:
    """Make ids of now."""
    now = datetime.now(timezone.utc)
    return lambda kind="full", suffix="7f3a": _of("names").new_backup_id(now, kind, suffix)


@pytest.fixture
def manifest_of() -> Callable[..., Any]:
    """Make the manifest of a full that holds `archive`."""

    def make(backup_id: str, archive: bytes, **changes: Any) -> Any:
        parts = _of("manifest")
        full = parts.Manifest(
            format=1,
            id=backup_id,
            kind="full",
            vm=parts.VmIdentity(*IDENTITY),
            parent=None,
            base=None,
            as_of="2026-11-22T01:00:00Z",
            consistency="crash",
            snapshot={"name": "vmbackup-x"},
            transport="datastore",
            codec="zlib",
            level=1,
            files=(
                parts.FileEntry("web 01.vmdk", 512, "descriptor"),
                parts.FileEntry("web 01-flat.vmdk", 1 << 30, "disk"),
            ),
            archive=parts.Digest("archive.tar.gz", len(archive), hashlib.sha256(archive).hexdigest()),
            tree_index=None,
            left_out=(parts.LeftOut("Hard disk 2", "disk", "excluded by policy"),),
            phases=(parts.Phase("archive", "mover", "2026-11-22T01:00:00Z", "2026-11-22T01:05:00Z", 1 << 30, 5, None),),
            collection_version="1.0.0",
        )
        return replace(full, **changes)

    return make


@pytest.fixture
def stage(tmp_path: Path, manifest_of: Callable[..., Any]) -> Callable[..., Path]:
    """Stage a backup as Phase I does; returns its folder."""

    def make(backup_id: str, archive: bytes = b"x" * 3_000_000, **changes: Any) -> Path:
        vm = changes["vm"].name if "vm" in changes else IDENTITY[0]
        changes.pop("in_store", None)
        with _of("folder").StoreTree(str(tmp_path / "staging")).incoming(vm, backup_id) as growing:
            sink = growing.sink("archive.tar.gz")
            sink.write(archive)
            sink.close()
            return Path(growing.commit(manifest_of(backup_id, archive, **changes), verify=False))

    return make


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return the root of an empty store."""
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def receiver_argv(tmp_path: Path, store: Path) -> Callable[..., List[str]]:
    """Write a policy with one key, and return the command that sshd would run for it."""

    def make(**grant: Any) -> List[str]:
        rights = {"vms": ["*"], "kinds": ["full", "incremental"], "notes": ["copy", "failed"], **grant}
        (tmp_path / "policy.json").write_text(json.dumps({"format": 1, "root": str(store), "keys": {"k1": rights}}))
        (tmp_path / "receiver.pyz").write_bytes(_of("zipapp_builder").build_receiver())
        pyz, policy = str(tmp_path / "receiver.pyz"), str(tmp_path / "policy.json")
        return [sys.executable, "-I", pyz, "--policy", policy, "--key", "k1"]

    return make


@pytest.fixture
def wire(receiver_argv: Callable[..., List[str]]) -> Callable[..., Any]:
    """Return a link to a receiver of its own process, without SSH."""

    def told(code: Any, words: str, greeted: bool) -> Any:
        return _of("ssh_link").blame(_of("link").StoreAddress(host="store"), code, words, greeted)

    return lambda **grant: _of("wire_link").WireLink(receiver_argv(**grant), told)
