# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a second scan tells of each way in which a tree can change."""

from __future__ import annotations

import os
import socket
import time

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.entry import RACY_WINDOW_NS


@pytest.fixture
def scanned(ground):
    """A tree with a file, a folder and its file; scanned once."""
    ground.write(b"a", b"one")
    ground.write(b"sub/b", b"two")
    ground.scan()
    return ground


def test_the_first_scan_finds_everything_new(ground):
    ground.write(b"a", b"one")
    ground.write(b"sub/b", b"four")
    found = ground.scan()
    told = [(each.kind, ground.relative(each.path), each.size) for each in found.changes()]
    assert [each for each in told if each[1]] == [
        ("created", b".", 0),
        ("created", b"a", 3),
        ("created", b"sub", 0),
        ("created", b"sub/b", 4),
    ]
    assert (found.bytes_to_save, found.bytes_total) == (7, 7)
    assert found.counts["created"] == len(told) == found.entries + 1


def test_a_baseline_lists_nothing(ground):
    ground.write(b"a")
    found = ground.scan(baseline=True)
    assert list(found.changes()) == []
    assert (found.bytes_to_save, found.bytes_total) == (0, 1)
    ground.write(b"new")
    assert ("created", b"new", "new") in ground.changes()


def test_nothing_changed_tells_nothing(scanned):
    assert scanned.changes() == []


def test_a_write_with_its_time_set_back_is_told(scanned):
    before = os.stat(scanned.path(b"a"))
    scanned.write(b"a", b"two")
    os.utime(scanned.path(b"a"), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert scanned.changes() == [("metadata", b"a", "ctime")]


def test_a_new_size_is_told(scanned):
    scanned.write(b"a", b"more than one")
    assert scanned.changes() == [("changed", b"a", "size")]


def test_a_new_time_is_told(scanned):
    scanned.write(b"a", b"uno")
    assert scanned.changes() == [("changed", b"a", "mtime")]


def test_a_replaced_file_of_equal_size_and_time_is_told_by_its_inode(scanned):
    path = scanned.path(b"sub/b")
    before, above = os.stat(path), os.stat(scanned.path(b"sub"))
    with open(path + b".new", "wb") as file:
        file.write(b"TWO")
    os.utime(path + b".new", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.rename(path + b".new", path)
    os.utime(scanned.path(b"sub"), ns=(above.st_atime_ns, above.st_mtime_ns))
    assert scanned.changes() == [("changed", b"sub/b", "inode"), ("metadata", b"sub", "ctime")]


def test_mode_and_owner_are_told(scanned):
    os.chmod(scanned.path(b"a"), 0o600)
    os.chmod(scanned.path(b"sub"), 0o700)
    assert scanned.changes() == [("metadata", b"a", "mode"), ("metadata", b"sub", "mode")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_is_told_even_beyond_31_bits(scanned):
    os.chown(scanned.path(b"a"), 4294967294, 4294967293)
    assert scanned.changes() == [("metadata", b"a", "owner")]
    assert scanned.changes() == []
    os.chown(scanned.path(b"a"), 4294967294, 5)
    assert scanned.changes() == [("metadata", b"a", "owner")]


def test_a_write_in_the_tick_of_the_scan_is_told_by_the_next_one(scanned):
    written = os.stat(scanned.path(b"a")).st_ctime_ns
    scanned.scan(now_ns=written + RACY_WINDOW_NS)
    assert ("changed", b"a", "same tick as the last scan") in scanned.changes()
    assert scanned.changes() == []
    scanned.scan(now_ns=written + RACY_WINDOW_NS)
    # Equal rows, equal digests: and still it has to be told.
    assert ("changed", b"a", "same tick as the last scan") in scanned.changes(now_ns=written + RACY_WINDOW_NS)


def test_a_deleted_folder_is_one_change(scanned):
    scanned.write(b"sub/deeper/c", b"12345")
    scanned.scan()
    os.rename(scanned.path(b"sub"), scanned.scratch.encode() + b"/away")
    gone = [each for each in scanned.raw_changes() if each.kind == "deleted"]
    assert [(scanned.relative(each.path), each.reason, each.entries, each.size) for each in gone] == [
        (b"sub", "gone", 3, 8)
    ]
    assert gone[0].is_folder


def test_a_renamed_folder_is_deleted_and_created(scanned):
    os.rename(scanned.path(b"sub"), scanned.path(b"bus"))
    assert scanned.changes() == [
        ("created", b"bus", "new"),
        ("created", b"bus/b", "new"),
        ("deleted", b"sub", "gone"),
        ("metadata", b".", "mtime"),
    ]


@pytest.mark.parametrize("make", ["folder", "symlink", "fifo"])
def test_another_type_is_deleted_and_created(scanned, make):
    path = scanned.path(b"a")
    os.unlink(path)
    {"folder": os.mkdir, "symlink": lambda p: os.symlink(b"sub", p), "fifo": os.mkfifo}[make](path)
    told = [each[:2] for each in scanned.changes()]
    assert told == [("created", b"a"), ("deleted", b"a"), ("metadata", b".")]


def test_a_folder_that_becomes_a_symlink_is_not_followed(scanned):
    os.rename(scanned.path(b"sub"), scanned.path(b"real"))
    os.symlink(b"real", scanned.path(b"sub"))
    told = [each[:2] for each in scanned.changes()]
    assert ("created", b"sub") in told and ("deleted", b"sub") in told
    assert set(scanned.names()) == {b"a", b"real", b"real/b", b"sub"}


def test_hard_links_of_a_saved_file_are_saved_with_it(scanned):
    os.link(scanned.path(b"sub/b"), scanned.path(b"z"))
    scanned.scan()
    # The names below a folder that is renamed are new, the inode is untouched: its other name would lose the link.
    os.rename(scanned.path(b"sub"), scanned.path(b"bus"))
    assert scanned.changes() == [
        ("created", b"bus", "new"),
        ("created", b"bus/b", "new"),
        ("deleted", b"sub", "gone"),
        ("linked", b"z", "link to a saved file"),
        ("metadata", b".", "mtime"),
    ]


def test_special_files_and_odd_names_are_kept(ground):
    os.mkfifo(ground.path(b"fifo"))
    here = os.getcwd()
    os.chdir(ground.root)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
    os.chdir(here)
    for name in (b"\xff\xfe", b"new\nline", b"-rf", b"a b", "naïve 日本".encode(), b"\xed\xb3\xbf", b"x" * 255):
        ground.write(name)
    names = ground.scan() and ground.names()
    assert set(names) == set(os.listdir(ground.root))
    assert ground.changes() == []
    ground.write(b"\xff\xfe", b"changed")
    assert ground.changes() == [("changed", b"\xff\xfe", "size")]


def test_entries_come_in_the_order_of_their_bytes(ground):
    for name in (b"a/x", b"a-b", b"a/\xe9", b"a.c/y", "a/é".encode(), b"a/\xff/q"):
        ground.write(name)
    paths = [ground.relative(each.path) for each in ground.scan().changes() if each.is_folder]
    assert [path for path in paths if path] == [b".", b"a", b"a/\xff", b"a.c"]
    names = [name for name in ground.names() if name.startswith(b"a/")]
    assert names == sorted(names[:3]) + names[3:]


@pytest.mark.parametrize("year", [1901, 1969, 2038, 2106, 2261, 2300, 2400])
def test_any_year_is_kept_and_compared(scanned, year):
    moment = int((year - 1970) * 365.2425 * 86400) * 10**9 + 123456789
    os.utime(scanned.path(b"a"), ns=(moment, moment))
    if os.stat(scanned.path(b"a")).st_mtime_ns != moment:
        pytest.skip("the file system cannot hold that year")
    assert scanned.changes() == [("changed", b"a", "mtime")]
    if -(2**63) <= moment < 2**63:
        assert scanned.names()[b"a"].mtime_ns == moment
    assert scanned.changes() == []
    os.utime(scanned.path(b"a"), ns=(moment, moment + 1))
    assert scanned.changes() == [("changed", b"a", "mtime")]


def test_the_clock_of_the_scan_is_the_one_that_is_given(ground):
    ground.write(b"a")
    ground.scan(now_ns=time.time_ns())
    assert ("changed", b"a", "same tick as the last scan") in ground.changes()
