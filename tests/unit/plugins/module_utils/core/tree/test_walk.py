# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a scan goes and where it does not: rules, markers, mounts, depth, folders that cannot be read."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree import folders, scan

SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"


def told(ground, found):
    return sorted((ground.relative(each.what), each.kind) for each in found.left_out if ground.relative(each.what))


def test_patterns_leave_out_and_count(ground):
    for name in (b"keep", b"a.tmp", b"cache/x", b"cache/y", b"sub/cache/z", b"sub/b.tmp", b"sub/keep.tmp"):
        ground.write(name)
    ground.scan()
    found = ground.scan(exclude=("*.tmp", "!keep.tmp", "/cache/"))
    assert set(ground.names()) == {b"keep", b"sub", b"sub/cache", b"sub/cache/z", b"sub/keep.tmp"}
    assert found.excluded == 3
    gone = [(ground.relative(each.path), each.reason) for each in found.changes() if each.kind == "deleted"]
    assert gone == [(b"a.tmp", "left out now"), (b"cache", "left out now"), (b"sub/b.tmp", "left out now")]


def test_a_file_that_is_gone_is_not_called_left_out(ground):
    ground.write(b"a.tmp")
    ground.write(b"b")
    ground.scan()
    os.unlink(ground.path(b"b"))
    gone = {
        ground.relative(each.path): each.reason
        for each in ground.raw_changes(exclude=("*.tmp",))
        if each.kind == "deleted"
    }
    assert gone == {b"a.tmp": "left out now", b"b": "gone"}


def test_own_folders_are_never_scanned(ground):
    ground.write(b"state/tree.idx")
    ground.write(b"a")
    ground.scan(always_out=(os.fsdecode(ground.path(b"state")),))
    assert set(ground.names()) == {b"a"}


def test_markers_keep_the_folder_and_the_marker(ground):
    ground.write(b"cache/CACHEDIR.TAG", SIGNATURE + b"\n# made by a test")
    ground.write(b"cache/big/file")
    ground.write(b"not a cache/CACHEDIR.TAG", b"just a name")
    ground.write(b"not a cache/file")
    ground.write(b"marked/.nobackup")
    ground.write(b"marked/file")
    found = ground.scan(exclude_caches=True, exclude_if_present=(".nobackup",))
    assert set(ground.names()) == {
        *(b"cache", b"cache/CACHEDIR.TAG", b"marked", b"marked/.nobackup"),
        *(b"not a cache", b"not a cache/CACHEDIR.TAG", b"not a cache/file"),
    }
    assert told(ground, found) == [(b"cache", "cache"), (b"marked", "marker")]
    assert b"cache/big/file" in (ground.scan() and ground.names())


def test_several_roots_hold_what_lies_on_the_way_to_them(ground):
    for name in (b"a/in/x", b"a/out/y", b"b/z", b"c/w"):
        ground.write(name)
    ground.scan()
    found = ground.scan(paths=tuple(os.fsdecode(ground.path(name)) for name in (b"b", b"a/in")))
    assert set(ground.names()) == {b"a", b"a/in", b"a/in/x", b"b", b"b/z"}
    gone = [(ground.relative(each.path), each.reason) for each in found.changes() if each.kind == "deleted"]
    assert gone == [(b"a/out", "left out now"), (b"c", "left out now")]


def test_a_root_that_is_missing_a_file_or_a_symlink_is_refused(ground):
    ground.write(b"file")
    ground.write(b"real/x")
    os.symlink(b"real", ground.path(b"link"))
    for name in (b"none", b"file", b"link", b"link/x"):
        with pytest.raises(VmbackupError) as refused:
            ground.scan(paths=(os.fsdecode(ground.path(name)),))
        assert refused.value.code == "scan_root_missing"
        assert "paths" in refused.value.hint
        assert os.fsdecode(name) in refused.value.message


def make_deep(root, depth, width):
    fd = os.open(root, os.O_RDONLY)
    for _level in range(depth):
        for number in reversed(range(width)):
            os.mkdir(b"%d" % number, dir_fd=fd)
        os.close(os.open(b"file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
        below = os.open(b"0", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


@pytest.mark.parametrize(("depth", "width"), [(3000, 1), (1000, 2), (200, 3)])
def test_a_deep_tree_needs_few_descriptors(ground, depth, width):
    make_deep(ground.root, depth, width)
    before = len(os.listdir("/proc/self/fd"))
    found = ground.scan()
    assert not told(ground, found)
    assert len(ground.names()) == depth * (width + 1)
    assert ground.changes() == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_descriptors_are_bounded_and_lead_to_the_same_folders(ground):
    make_deep(ground.root, 100, 1)
    before = len(os.listdir("/proc/self/fd"))
    deep = ground.inside + b"/0" * 100
    with folders.Folders() as way:
        way.open(deep)
        assert len(os.listdir("/proc/self/fd")) <= before + folders.KEPT
        # The folder that is opened again is another one now: it must not be taken for the one that was left.
        os.rename(ground.root, ground.root + b".away")
        os.mkdir(ground.root)
        os.mkdir(ground.path(b"0"))
        with pytest.raises(OSError, match="moved"):
            way.open(ground.inside + b"/0")
    assert len(os.listdir("/proc/self/fd")) == before


@contextmanager
def another_user():
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_cannot_be_read_is_told_and_its_entries_are_new_when_it_can(ground):
    ground.write(b"locked/x")
    ground.write(b"open/y")
    os.chmod(ground.scratch, 0o777)
    ground.scan()
    os.chmod(ground.path(b"locked"), 0)
    base, ground.index = ground.index, ground.scratch + "/readable.idx"
    os.rename(base, ground.index)
    os.chmod(ground.index, 0o644)
    with another_user():
        found = ground.scan()
        assert told(ground, found) == [(b"locked", "unreadable")]
        assert ("deleted", b"locked/x", "left out now") in [
            (each.kind, ground.relative(each.path), each.reason) for each in found.changes()
        ]
    os.chmod(ground.path(b"locked"), 0o755)
    assert ("created", b"locked/x", "new") in ground.changes()


@pytest.fixture
def mounted(ground):
    ground.write(b"mnt/under")
    ground.write(b"file")
    done = subprocess.run(["mount", "-t", "tmpfs", "none", ground.path(b"mnt")], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("mounting is not allowed here: {}".format(done.stderr.decode().strip()))
    ground.write(b"mnt/above")
    yield ground
    subprocess.run(["umount", ground.path(b"mnt")], check=True)


def test_a_pseudo_file_system_is_never_entered(mounted):
    for crossing in (False, True):
        found = mounted.scan(cross_filesystems=crossing)
        assert told(mounted, found) == [(b"mnt", "pseudo_filesystem")]
        assert set(mounted.names()) == {b"file", b"mnt"}
    subprocess.run(["umount", mounted.path(b"mnt")], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", mounted.path(b"mnt")], check=True)
    # As after a reboot: another device, other times. The mount point's mode is the only thing that is compared.
    os.chmod(mounted.path(b"mnt"), 0o1777)
    assert mounted.changes() == []


def test_another_file_system_is_entered_when_asked(mounted, monkeypatch):
    monkeypatch.setattr(scan, "PSEUDO", frozenset())
    found = mounted.scan()
    assert told(mounted, found) == [(b"mnt", "other_filesystem")]
    assert set(mounted.names()) == {b"file", b"mnt"}
    assert ("created", b"mnt/above", "new") in mounted.changes(cross_filesystems=True)


def test_a_root_may_be_on_any_file_system(mounted):
    found = mounted.scan(paths=(os.fsdecode(mounted.path(b"mnt")),))
    assert set(mounted.names()) == {b"mnt", b"mnt/above"}
    assert not told(mounted, found)
