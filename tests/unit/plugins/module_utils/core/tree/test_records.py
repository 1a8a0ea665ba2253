# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows, and the lists that are kept in files."""

from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree import changes, left_out
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.entry import Row, pack_rows, unpack_rows
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.records import Listing

NUMBER = st.integers(-(2**70), 2**70)
NAME = st.binary(min_size=1, max_size=20).filter(lambda name: not set(b"/\0") & set(name))
BIG = 2**64


def wrapped(number):
    return (number + BIG // 2) % BIG - BIG // 2


@given(st.dictionaries(NAME, st.builds(Row, *[NUMBER] * 6), max_size=8))
def test_a_record_opens_to_what_was_closed_into_it(entries):
    names = b"\0".join(entries)
    rows = pack_rows([number for row in entries.values() for number in row])
    listing = Listing(b"a/b", 0, Row(0, -1, 1, 5, 0o40755, 0), len(entries), 0, names, rows)
    opened = listing.close().open()
    assert opened == listing
    assert [name for name, row in opened.entries()] == list(entries)
    assert [row for name, row in opened.entries()] == [Row(*map(wrapped, row)) for row in entries.values()]


@pytest.mark.parametrize("moment", [-(10**18), -1, 0, 2**31 * 10**9, 2**63 - 1, -(2**63)])
def test_times_within_64_bits_are_exact(moment):
    assert unpack_rows(pack_rows([1, moment, moment, 2, 3, 4]))[0] == Row(1, moment, moment, 2, 3, 4)


CHANGE = st.builds(
    changes.Change,
    st.sampled_from(changes.KINDS),
    st.binary(max_size=300),
    st.sampled_from(changes.REASONS),
    st.integers(0, 2**63),
    st.integers(0, 0o177777),
    st.integers(0, 2**40),
)


@given(st.lists(CHANGE, max_size=10))
def test_changes_are_read_back_as_they_were_added(found):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "changes")
        with changes.ChangeSpill(path) as spill:
            for each in found:
                spill.add(each)
        assert list(changes.read_changes(path)) == found
        assert spill.counts == {kind: sum(each.kind == kind for each in found) for kind in changes.KINDS}
        assert spill.bytes_to_save == sum(each.size for each in found if each.kind != "deleted")


def test_a_cut_list_of_changes_raises(folder):
    path = os.fsdecode(folder) + "/changes"
    with changes.ChangeSpill(path) as spill:
        spill.add(changes.Change("created", b"abc", "new", 1, 0o100644))
    with open(path, "rb") as file:
        whole = file.read()
    for length in range(len(whole)):
        with open(path, "wb") as file:
            file.write(whole[:length])
        with pytest.raises(VmbackupError) as failed:
            list(changes.read_changes(path))
        assert failed.value.code == "tree_changes_damaged"
    with pytest.raises(VmbackupError):
        list(changes.read_changes(path + ".none"))
    with pytest.raises(VmbackupError) as failed, changes.ChangeSpill("/dev/full") as spill:
        spill.add(changes.Change("created", b"abc", "new", 1, 0o100644))
    assert failed.value.code == "tree_write_failed"


def test_what_is_left_out_is_counted_beyond_what_is_listed():
    log = left_out.LeftOutLog()
    for number in range(left_out.KEPT + 7):
        log.add(b"%d" % number, "vanished", "test")
    log.add(b"3", "unreadable", "told again")
    assert (len(log.listed()), log.unlisted(), log.by_kind) == (1000, 7, {"vanished": 1006, "unreadable": 1})
