# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a VM's policy changes in its backup, and what the store is told beside it."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.opened_backup import committed, manifest
from tests.lab.fixtures import LabVm, Played
from tests.lab.site import LabSite

Make = Callable[..., LabVm]
Play = Callable[..., Played]


def records(root: Path, vm: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((root / vm / ".records").glob("*.json"))]


def test_policy_per_vm_and_records_of_each_phase(lab: LabSite, fresh_vm: Make, play: Play) -> None:
    logged = fresh_vm(power="on", variables={"vmbackup_include_logs": True, "vmbackup_quiesce": "never"})
    plain = fresh_vm(
        power="on", variables={"vmbackup_codec": "zlib", "vmbackup_level": 6, "vmbackup_quiesce": "required"}
    )
    done = play("full_backup.yml", "--limit", f"{logged.name},{plain.name}")
    assert done.rc == 0, done.output

    (backup,) = committed(lab.store_root, logged.name)
    with tarfile.open(backup / "archive.tar.gz") as archive:
        assert any(name.endswith(".log") for name in archive.getnames())
    assert manifest(backup)["consistency"] == "crash"

    (backup,) = committed(lab.store_root, plain.name)
    told = manifest(backup)
    assert (told["codec"], told["level"], told["consistency"]) == ("zlib", 6, "application")
    assert any(each["kind"] == "log" for each in told["left_out"])
    (packing,) = told["phases"]
    assert packing["name"] == "archive" and packing["bytes_in"] == sum(each["size"] for each in told["files"])
    assert {each["kind"] for each in records(lab.store_root, plain.name)} == {"arrived", "copy"}


def test_a_failed_run_leaves_a_record_and_no_backup(lab: LabSite, fresh_vm: Make, play: Play) -> None:
    vm = fresh_vm(power="on", disks=[{"size_mb": 8, "rdm": "physical"}])
    done = play("full_backup.yml", "--limit", vm.name)
    assert done.rc == 2 and "physical RDM" in done.stdout
    (record,) = records(lab.store_root, vm.name)
    assert record["kind"] == "failed" and "physical RDM" in json.dumps(record)
    assert committed(lab.store_root, vm.name) == []
