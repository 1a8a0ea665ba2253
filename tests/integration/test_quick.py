# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One small backup through everything; also run on the oldest and the newest supported ansible-core."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import time
from pathlib import Path

import pytest


@pytest.mark.quick
@pytest.mark.parametrize("esx", ["esx1", "vc1"])
def test_a_full_backup_reaches_the_store_and_opens_with_plain_tools(lab, fresh_vm, play, esx):
    vm = fresh_vm(esx=esx, disks=[{"size_mb": 8, "fill_mb": 3, "seed": 7}])
    live = vm.control.sha256(vm.name)

    played = play("full_backup.yml", "--limit", vm.name)

    assert played.rc == 0, played.output
    (backup,) = (lab.store_root / vm.name).glob("2*-full-*")
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=backup, check=True)
    with tarfile.open(backup / "archive.tar.gz") as archive:
        (flat,) = [entry for entry in archive.getmembers() if entry.name.endswith("-flat.vmdk")]
        packed = hashlib.sha256(archive.extractfile(flat).read()).hexdigest()
    assert packed == live
    assert vm.state()["snapshots"] == []
    assert lab.esx[esx].password not in played.output


@pytest.mark.quick
def test_an_incremental_holds_what_changed(lab, fresh_vm, play, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "kept").write_text("kept")
    time.sleep(2.1)  # what is touched within two seconds of a scan counts as changed
    own = {"vmbackup_baseline": True, "vmbackup_file_paths": [str(tree)], "vmbackup_guest_route": "tunnel"}
    vm = fresh_vm(disks=[{"size_mb": 4}], variables=own)
    for playbook in ("guest_setup.yml", "full_backup.yml"):
        played = play(playbook, "--limit", vm.name)
        assert played.rc == 0, played.output
    (tree / "new").write_text("new")

    played = play("incremental_backup.yml", "--limit", vm.name)

    assert played.rc == 0, played.output
    (backup,) = (lab.store_root / vm.name).glob("2*-incremental-*")
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=backup, check=True)
    with tarfile.open(backup / "archive.tar.gz") as archive:
        assert {Path(name).name for name in archive.getnames()} == {"tree", "new", "members.idx"}
