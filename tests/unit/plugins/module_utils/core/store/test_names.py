# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names in the store."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.names import (
    folder_name,
    new_backup_id,
    parse_backup_id,
    plain_file_name,
    vm_name,
)


@given(st.text(min_size=1, max_size=20))
def test_every_name_of_a_vm_becomes_one_plain_component_and_comes_back(name: str) -> None:
    try:
        folder = folder_name(name)
    except (VmbackupError, UnicodeEncodeError):
        assert len(name.encode("utf-8", "replace")) > 80 or any("\ud800" <= c <= "\udfff" for c in name)
        return
    assert vm_name(folder) == name
    assert "/" not in folder
    assert not folder.startswith(".")
    assert folder.isascii()


def test_slashes_quotes_and_dots_are_encoded() -> None:
    assert folder_name("a/b") == "a%2Fb"
    assert folder_name("..") == "%2E."
    assert folder_name(".records") == "%2Erecords"
    assert folder_name("Ü 'x'") == "%C3%9C%20%27x%27"


@pytest.mark.parametrize("folder", ["a%2fb", ".incoming", "a b", "", "%"])
def test_a_folder_that_we_would_not_have_made_is_no_vm(folder: str) -> None:
    with pytest.raises(VmbackupError, match="folder"):
        vm_name(folder)


def test_an_id_is_taken_apart_into_what_it_was_made_of() -> None:
    now = datetime(2026, 11, 22, 1, 0, 0, tzinfo=timezone.utc)
    made = new_backup_id(now, "full", "7f3a")
    assert made == "20261122T010000Z-full-7f3a"
    assert str(parse_backup_id(made)) == made
    assert parse_backup_id(made).time == now


@pytest.mark.parametrize(
    "wrong",
    ["", "../x", "20261122T010000Z-full-7f3a/", "20261122T010000Z-full-7f3a\n", "20261322T010000Z-full-7f3a",
     "20261122T010000Z-half-7f3a", "20261122T010000Z-full-7F3A", ".incoming", "٢٠٢٦1122T010000Z-full-7f3a"],
)  # fmt: skip
def test_what_is_not_an_id_is_refused(wrong: str) -> None:
    with pytest.raises(VmbackupError) as caught:
        parse_backup_id(wrong)
    assert caught.value.code == "backup_id_invalid"


@pytest.mark.parametrize("wrong", ["", ".", "..", "a/b", "/a", ".part-x", "a\n", "a\0b", "ä", "-rf", "a" * 200])
def test_a_file_name_is_one_plain_component(wrong: str) -> None:
    with pytest.raises(VmbackupError):
        plain_file_name(wrong)
