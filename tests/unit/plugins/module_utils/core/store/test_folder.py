# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups that grow and are committed on this machine's disk."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store import writer_lock
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.folder import StoreTree
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.layout import VmFolder
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.lineage import find_tip
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.link import LocalLink
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.manifest import Manifest

Make = Callable[..., Manifest]
NewId = Callable[..., str]


def _add(root: Path, manifest: Manifest, archive: bytes, adopt: bool = False) -> Path:
    with StoreTree(str(root)).incoming(manifest.vm.name, manifest.id, adopt=adopt) as growing:
        growing.write("archive.tar.gz", archive)
        return Path(growing.commit(manifest))


def test_a_committed_backup_passes_sha256sum_and_is_listed(store: Path, manifest_of: Make, new_id: NewId) -> None:
    place = _add(store, manifest_of(new_id(), b"abc"), b"abc")
    subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=place, check=True, capture_output=True)
    assert [backup.manifest and backup.manifest.id for backup in StoreTree(str(store)).backups("web 01")] == [new_id()]
    assert StoreTree(str(store)).vms() == ["web 01"]
    assert list((place.parent / ".incoming").iterdir()) == []


def test_leaving_without_a_commit_leaves_nothing(store: Path, new_id: NewId) -> None:
    with StoreTree(str(store)).incoming("web 01", new_id()) as growing:
        growing.write("archive.tar.gz", b"abc")
    assert StoreTree(str(store)).backups("web 01") == []
    assert list((store / "web%2001" / ".incoming").iterdir()) == []


def test_a_second_writer_of_one_id_is_refused(store: Path, new_id: NewId) -> None:
    tree = StoreTree(str(store))
    with tree.incoming("web 01", new_id()):
        with pytest.raises(VmbackupError) as caught, tree.incoming("web 01", new_id()):
            pass
        assert caught.value.code == "backup_in_use"
        assert tree.sweep_incoming("web 01", 0) == []


def test_another_machines_folder_is_refused_unless_adopted(store: Path, manifest_of: Make, new_id: NewId) -> None:
    first = manifest_of(new_id(suffix="aaaa"), b"abc")
    _add(store, first, b"abc")
    other = replace(first, id=new_id(suffix="bbbb"), vm=replace(first.vm, instance_uuid="other"))
    with pytest.raises(VmbackupError) as caught:
        _add(store, other, b"abc")
    assert caught.value.code == "vm_uuid_differs"
    _add(store, other, b"abc", adopt=True)
    _add(store, replace(other, id=new_id(suffix="cccc")), b"abc")
    tip = find_tip(VmFolder(str(store), "web 01"))
    assert tip is not None
    assert tip.id.endswith("cccc")


def test_a_digest_that_differs_keeps_the_backup_out(store: Path, manifest_of: Make, new_id: NewId) -> None:
    with pytest.raises(VmbackupError) as caught:
        _add(store, manifest_of(new_id(), b"abc"), b"abd")
    assert caught.value.code == "backup_damaged"
    assert StoreTree(str(store)).backups("web 01") == []


@pytest.mark.parametrize("foreign", ["link", "folder", "hardlink"])
def test_a_link_or_folder_among_the_files_is_refused(
    store: Path, manifest_of: Make, new_id: NewId, foreign: str
) -> None:
    def smuggle(folder: Path) -> None:
        if foreign == "link":
            (folder / "tree.idx").symlink_to("/etc/passwd")
        elif foreign == "folder":
            (folder / "tree.idx").mkdir()
        else:
            os.link(str(folder / "archive.tar.gz"), str(folder / "tree.idx"))

    with StoreTree(str(store)).incoming("web 01", new_id()) as growing:
        growing.write("archive.tar.gz", b"abc")
        smuggle(Path(growing.path))
        with pytest.raises(VmbackupError) as caught:
            growing.commit(manifest_of(new_id(), b"abc"))
    assert caught.value.code == "backup_foreign_file"


def test_a_damaged_backup_is_listed_with_its_problem(store: Path, manifest_of: Make, new_id: NewId) -> None:
    place = _add(store, manifest_of(new_id(), b"abc"), b"abc")
    (place / "manifest.json").write_text("{")
    (backup,) = StoreTree(str(store)).backups("web 01")
    assert backup.manifest is None
    assert "JSON" in backup.problem


def test_what_a_killed_writer_left_is_swept_when_it_is_old(store: Path, new_id: NewId) -> None:
    growing = StoreTree(str(store)).incoming("web 01", new_id())
    growing.write("archive.tar.gz", b"abc")
    kept = shutil.copytree(growing.path, str(store / "copy"))
    growing.discard()
    shutil.move(kept, growing.path)
    assert StoreTree(str(store)).sweep_incoming("web 01", 3600) == []
    assert StoreTree(str(store)).sweep_incoming("web 01", 0) == [new_id()]


def test_a_full_disk_is_told_as_such(manifest_of: Make, new_id: NewId, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() or subprocess.call(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]):
        pytest.skip("mounting a small tmpfs needs root")
    try:
        with StoreTree(str(small)).incoming("web 01", new_id()) as growing:
            sink = growing.sink("archive.tar.gz")
            with pytest.raises(VmbackupError) as caught:
                sink.write(bytes(2 << 20))
            sink.close()
        assert caught.value.code == "store_full"
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_new_pack_sweeps_what_dead_ones_left_and_nothing_else(store: Path, new_id: NewId) -> None:
    tree = StoreTree(str(store))
    living, dead = tree.incoming("web 01", new_id(suffix="aaaa")), VmFolder(str(store), "web 01")
    growing = dead.incoming(new_id(suffix="dead"))
    growing.mkdir()
    (growing / "archive.tar.gz").write_bytes(b"abc")
    dead.lock(new_id(suffix="beef")).touch()
    (dead.incoming_root / "notes of an administrator").mkdir()
    with living, tree.incoming("web 01", new_id(), sweep=0.0) as fresh:
        assert Path(fresh.path).is_dir() and Path(living.path).is_dir()
        assert dead.growing_ids() == sorted((new_id(), new_id(suffix="aaaa")))
        assert (dead.incoming_root / "notes of an administrator").is_dir()


def test_a_store_keeps_what_a_mover_may_go_on_with_for_a_week(store: Path, new_id: NewId) -> None:
    folder = VmFolder(str(store), "web 01")
    for suffix, days in (("aaaa", 6), ("bbbb", 8)):
        growing = folder.incoming(new_id(suffix=suffix))
        growing.mkdir(parents=True)
        os.utime(growing, (time.time() - days * 86400,) * 2)
    with LocalLink(str(store)) as link:
        link.put("web 01", new_id(), "archive.tar.gz", 0, b"abc")
        assert folder.growing_ids() == sorted((new_id(), new_id(suffix="aaaa")))


def test_a_lock_that_could_not_be_written_is_not_held(store: Path, new_id: NewId, monkeypatch: Any) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(VmbackupError) as caught:
            StoreTree(str(store)).incoming("web 01", new_id())
    assert caught.value.code == "store_full"
    StoreTree(str(store)).incoming("web 01", new_id()).discard()


def test_a_commit_whose_writer_was_broken_off_publishes_nothing(
    store: Path, stage: Any, new_id: NewId, monkeypatch: Any
) -> None:
    staged = stage(new_id(), b"abc")
    digest = hashlib.sha256((staged / "SHA256SUMS").read_bytes()).hexdigest()
    first, second = LocalLink(str(store)), LocalLink(str(store))
    for file in staged.iterdir():
        first.put("web 01", new_id(), file.name, 0, file.read_bytes())
    monkeypatch.setattr(writer_lock, "IDLE", -1.0)
    assert second.size("web 01", new_id()).state == "partial"
    with pytest.raises(VmbackupError) as caught:
        first.commit("web 01", new_id(), digest)
    assert caught.value.code == "backup_in_use"
    assert VmFolder(str(store), "web 01").committed_ids() == []
    second.commit("web 01", new_id(), digest)
    assert VmFolder(str(store), "web 01").committed_ids() == [new_id()]
