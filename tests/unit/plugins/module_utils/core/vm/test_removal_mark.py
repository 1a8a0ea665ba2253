# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Marks of removals: what they tell, and what tells nothing."""

from __future__ import annotations

import json

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.removal_mark import (
    RemovalMark,
    clear_mark,
    read_mark,
    set_mark,
)

UUID = "5012AB34-0000-1111-2222-333344445555"
ID = "20261122T010000Z-full-7f3a"


def test_a_mark_stands_until_it_is_cleared_and_the_newest_counts(tmp_path):
    folder = tmp_path / "locks"
    assert read_mark(str(folder), UUID) is None
    set_mark(str(folder), UUID, "20261121T010000Z-full-0001", [])
    set_mark(str(folder), UUID, ID, ["snapshot-9", "snapshot-10"])
    assert read_mark(str(folder), UUID) == RemovalMark(ID, ["snapshot-10", "snapshot-9"])
    assert read_mark(str(folder), "another VM") is None
    assert [path.name for path in folder.iterdir()] == [UUID.lower() + ".removal"]
    clear_mark(str(folder), UUID)
    clear_mark(str(folder), UUID)
    assert read_mark(str(folder), UUID) is None


def test_a_folder_that_refuses_writes_stops_no_removal(tmp_path):
    (tmp_path / "file").write_text("no folder")
    set_mark(str(tmp_path / "file"), UUID, ID, [])
    clear_mark(str(tmp_path / "file"), UUID)
    assert read_mark(str(tmp_path / "file"), UUID) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        json.dumps({"backup_id": ID, "instance_uuid": "another VM", "others": []}),
        json.dumps({"backup_id": ID, "instance_uuid": UUID}),
        json.dumps({"backup_id": None, "instance_uuid": UUID, "others": []}),
    ],
)
def test_what_is_unclear_proves_nothing(tmp_path, content):
    (tmp_path / (UUID.lower() + ".removal")).write_text(content)
    assert read_mark(str(tmp_path), UUID) is None
