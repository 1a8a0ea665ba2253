# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What moves while the scan runs is found where it is, or told."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree import left_out, scan
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.index import IndexReader, IndexWriter
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.rules import ScanRules
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.settle import settle

from .ground import HOUR_NS, INFO


class Interrupted:
    """A scan with a hand on it: `act` is called when the folder `at` was listed; then the index is settled."""

    def __init__(self, ground, at, act):
        self.log = left_out.LeftOutLog()
        rules = ScanRules((os.fsdecode(ground.root),))
        ground.index = ground.scratch + "/interrupted.idx"
        with scan.Scanner(rules, time.time_ns() + HOUR_NS, self.log) as scanner:
            with IndexWriter(ground.index, INFO) as writer:
                for listing in scanner.walk():
                    writer.add(listing.close())
                    if ground.relative(listing.path) == at:
                        act()
                writer.finish()
            before = os.stat(ground.index).st_ino
            settle(ground.index, scanner, self.log)
            self.rewritten = os.stat(ground.index).st_ino != before

    def kinds(self, ground):
        return [(ground.relative(each.what), each.kind) for each in self.log.listed()]


@pytest.fixture
def busy(ground):
    for name in (b"a/x", b"b/deep/y", b"b/z", b"c/w"):
        ground.write(name)
    return ground


def on_disk(ground):
    return {
        ground.relative(os.path.join(folder, name).lstrip(b"/"))
        for folder, names, files in os.walk(ground.root)
        for name in names + files
    }


def move(ground, source, target):
    return lambda: os.rename(ground.path(source), ground.path(target))


@pytest.mark.parametrize(
    ("at", "source", "target"),
    [
        (b"b", b"b/deep", b"a/deep"),  # listed in b, not yet visited, now where the walk has been
        (b"a", b"b/deep", b"a/deep"),
        (b"b/deep", b"a", b"c/a"),  # seen, and now once more ahead
        (b"b/deep", b"b/deep", b"a-b"),
        (b"b", b"c/w", b"a/w"),
        (b".", b"b", b"a/b"),
        (b"c", b"b", b"z"),
    ],
)
def test_what_moves_during_the_scan_is_found_where_it_is(busy, at, source, target):
    scanned = Interrupted(busy, at, move(busy, source, target))
    assert set(busy.names()) == on_disk(busy)
    assert [kind for kind in scanned.kinds(busy) if kind[1] != "vanished"] == []
    with IndexReader(busy.index) as reader:
        paths = [record.path for record in reader]
    assert len(paths) == len(set(paths))
    for folder in on_disk(busy):
        assert not os.path.isdir(busy.path(folder)) or busy.inside + b"/" + folder in paths


def test_a_folder_that_is_replaced_by_another_one_is_scanned_whole(busy):
    def act():
        os.rename(busy.path(b"b"), busy.scratch.encode() + b"/away")
        busy.write(b"b/other/q")

    Interrupted(busy, b"c", act)
    assert set(busy.names()) == on_disk(busy)


def test_a_folder_that_vanishes_is_told_and_not_in_the_index(busy):
    scanned = Interrupted(busy, b"b", lambda: subprocess.run(["rm", "-rf", busy.path(b"b/deep")], check=True))
    assert scanned.kinds(busy) == [(b"b/deep", "vanished")]
    assert set(busy.names()) == on_disk(busy)


def test_a_scan_in_which_nothing_moved_is_not_written_again(busy):
    assert not Interrupted(busy, b"b", lambda: None).rewritten


def test_a_folder_that_never_rests_is_told_after_three_rounds(busy, monkeypatch):
    again = scan.Scanner.again

    def restless(self, path):
        listing = again(self, path)
        if busy.relative(path) == b"a":
            busy.write(b"a/%d" % time.monotonic_ns())
            os.utime(busy.path(b"a"))
        return listing

    monkeypatch.setattr(scan.Scanner, "again", restless)
    scanned = Interrupted(busy, b"a", lambda: busy.write(b"a/late"))
    assert scanned.kinds(busy) == [(b"a", "moved")]
