# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module archive_copy through ansible: what it answers, and what it leaves where."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

from tests.integration.opened_backup import committed, incoming
from tests.integration.staged_backup import fresh_id, lab_store, noise, run_module, size_of, stage
from tests.lab.site import LabSite


def arguments(lab: LabSite, source: Path, **changes: Any) -> dict[str, Any]:
    store = {name: value for name, value in dataclasses.asdict(lab_store(lab)).items() if value != ""}
    return {"vm": source.name, "source": str(source), "store": store, **changes}


def test_a_copy_is_planned_made_told_recorded_and_not_made_twice(lab: LabSite, tmp_path: Path) -> None:
    source = tmp_path / "copied"
    staged = stage(source, "copied", noise(2 << 20))
    size = size_of(staged)
    given = arguments(lab, source, rate_limit=1 << 20, keep_staged=True)

    plan = run_module("archive_copy", given, "--check")
    assert (
        plan["changed"] and plan["reason"].startswith(f"would copy {staged.name} to ") and "2.0 MiB" in plan["reason"]
    )
    assert committed(lab.store_root, "copied") == []

    done = run_module("archive_copy", given)
    (backup,) = committed(lab.store_root, "copied")
    assert {each.name: each.read_bytes() for each in backup.iterdir()} == {
        each.name: each.read_bytes() for each in staged.iterdir()
    }
    assert done["changed"] and done["backups"][0]["bytes_sent"] == size
    assert done["backups"][0]["seconds"] >= 1
    assert re.fullmatch(rf"2\.0 MiB copied to {lab.store.user}@{lab.store.address}:\d+ in \d+(\.\d)? s", done["reason"])
    records = [json.loads(path.read_text()) for path in (backup.parent / ".records").iterdir()]
    assert sorted(each["kind"] for each in records) == ["arrived", "copy"]
    (copy,) = (each["body"] for each in records if each["kind"] == "copy")
    assert (copy["phase"], copy["bytes_in"], copy["bytes_out"]) == ("copy", size, size)

    again = run_module("archive_copy", given)
    assert not again["changed"] and again["reason"] == f"{staged.name} is in the store already"
    assert len(list((backup.parent / ".records").iterdir())) == 2
    last = run_module("archive_copy", {**given, "keep_staged": False})
    assert last["changed"] and not staged.exists() and incoming(source, "copied") == []


def test_without_a_staged_backup_the_plan_says_so_and_the_copy_fails(lab: LabSite, tmp_path: Path) -> None:
    given = arguments(lab, tmp_path / "nothing")
    for options in ([], ["--check"]):
        idle = run_module("archive_copy", given, *options)
        assert not idle["changed"] and idle["reason"] == "nothing is staged for nothing"
    given["backup_id"] = fresh_id()
    plan = run_module("archive_copy", given, "--check")
    assert plan["changed"] and plan["reason"].endswith("once it is staged")
    assert run_module("archive_copy", given)["code"] == "staged_backup_missing"


def test_one_backup_that_is_refused_does_not_keep_back_the_others(lab: LabSite, tmp_path: Path) -> None:
    source = tmp_path / "mixed"
    bad, good = stage(source, "mixed", noise(1000), fresh_id()), stage(source, "mixed", noise(2000), fresh_id())
    old = source / "mixed" / "20200101T000000Z-full-aaaa"
    shutil.copytree(bad, old)
    (bad / "archive.tar.gz").write_bytes(noise(1000, seed=2))
    done = run_module("archive_copy", arguments(lab, source))
    assert done["code"] == "backup_id_off_clock"
    assert str(old) in done["msg"] and str(bad) in done["msg"] and "remove a staged copy" in done["hint"]
    assert [each.name for each in committed(lab.store_root, "mixed")] == [good.name]
    assert committed(source, "mixed") == sorted([old, bad])
