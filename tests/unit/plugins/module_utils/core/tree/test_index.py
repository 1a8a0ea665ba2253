# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An index that is not what was written raises, whatever happened to it, and never passes for an empty one."""

from __future__ import annotations

import hashlib
import json
import os
import random

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.drop import drop_entries
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.index import IndexReader

CODES = {"tree_index_damaged", "tree_index_foreign", "tree_index_version"}


@pytest.fixture
def index(ground):
    """The bytes of a small index."""
    for name in (b"a", b"b", b"sub/c", b"sub/deeper/d"):
        ground.write(name)
    os.link(ground.path(b"a"), ground.path(b"sub/link"))
    ground.scan()
    with open(ground.index, "rb") as file:
        return file.read()


def read(path):
    """Read all of an index and open every record; return the code of the error."""
    try:
        with IndexReader(path) as reader:
            for record in reader:
                record.open()
    except VmbackupError as error:
        assert error.hint
        return error.code
    assert reader.totals is not None
    return None


@pytest.fixture
def reading(folder):
    path = os.fsdecode(folder) + "/broken.idx"

    def run(data):
        with open(path, "wb") as file:
            file.write(data)
        return read(path)

    return run


def test_an_intact_index_is_read(index, reading):
    assert reading(index) is None


def test_every_flipped_bit_is_found(index, reading):
    for place in range(len(index)):
        broken = bytearray(index)
        broken[place] ^= 1 << place % 8
        assert reading(broken) in CODES, place


def test_every_truncation_is_found(index, reading):
    for length in range(len(index)):
        assert reading(index[:length]) in CODES, length


def test_what_follows_the_end_is_found(index, reading):
    assert reading(index + b"\0") == "tree_index_damaged"
    assert reading(index + index) == "tree_index_damaged"


def test_foreign_and_newer_files_are_told_apart(index, reading):
    assert reading(b"") == "tree_index_foreign"
    assert reading(b"\x1f\x8b" + bytes(500)) == "tree_index_foreign"
    assert reading(random.Random(1).getrandbits(8000).to_bytes(1000, "little")) == "tree_index_foreign"
    assert reading(index[:8] + b"\x02" + index[9:]) == "tree_index_version"


def resealed(body):
    return body + hashlib.sha256(body).digest()


def test_a_checksum_that_holds_does_not_hide_nonsense(index, reading):
    body = index[:-32]
    assert reading(resealed(body)) is None
    start = 16 + int.from_bytes(index[12:16], "little")
    for place in range(start, len(body)):
        broken = bytearray(body)
        broken[place] ^= 0x55
        code = reading(resealed(bytes(broken)))
        # A path, the flags or the sizes may be other ones and still make sense; nothing else may.
        assert code in CODES or code is None
    for header in (b"[]", b"{", b"\xff", b""):
        head = index[:12] + len(header).to_bytes(4, "little") + header
        assert reading(resealed(head + body[start:])) == "tree_index_damaged"


def test_a_missing_index_is_told(folder):
    assert read(os.fsdecode(folder) + "/none.idx") == "tree_index_unreadable"


@pytest.mark.parametrize("region", range(10))
def test_a_scan_against_a_damaged_index_fails(ground, index, region):
    broken = bytearray(index)
    broken[len(index) * region // 10] ^= 0x10
    with open(ground.index, "wb") as file:
        file.write(broken)
    with pytest.raises(VmbackupError) as failed:
        ground.scan()
    assert failed.value.code in CODES


def test_a_scan_against_the_index_of_another_machine_fails(ground, index):
    with IndexReader(ground.index) as reader:
        header = dict(reader.header, vm="db02")
    text = json.dumps(header).encode()
    start = 16 + int.from_bytes(index[12:16], "little")
    with open(ground.index, "wb") as file:
        file.write(resealed(index[:12] + len(text).to_bytes(4, "little") + text + index[start:-32]))
    with pytest.raises(VmbackupError) as failed:
        ground.scan()
    assert failed.value.code == "tree_index_foreign"


def test_dropped_entries_are_new_at_the_next_scan(ground, index):
    whole = ground.names()
    target = ground.scratch + "/dropped.idx"
    dropped = [ground.inside + b"/" + name for name in (b"a", b"sub/deeper", b"not there", b"sub/link")]
    totals = drop_entries(ground.index, target, dropped)
    assert set(ground.names(target)) == {b"b", b"sub", b"sub/c"}
    assert {name: whole[name] for name in ground.names(target)} == ground.names(target)
    with IndexReader(target) as reader:
        assert sum(record.entry_count for record in reader) == totals.entries == reader.totals.entries
    assert [each[:2] for each in ground.changes(against=target)] == [
        ("created", b"a"),
        ("created", b"sub/deeper"),
        ("created", b"sub/deeper/d"),
        ("created", b"sub/link"),
    ]


def test_a_full_disk_is_told(ground):
    ground.write(b"a")
    with pytest.raises(VmbackupError) as failed:
        drop_entries(ground.scan() and ground.index, "/dev/full", [])
    assert failed.value.code == "tree_write_failed"
