# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is done to a tree between two scans: what the changes tell turns the old tree into the new one."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from .ground import Ground

NAMES = [b"a", b"b", b"c", b"a-b", b"\xff", "é".encode()]
OPERATIONS = ["write", "sneak", "chmod", "rename", "link", "symlink", "delete", "folder", "fifo", "replace", "touch"]
STEP = st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 1000), st.integers(0, 1000))


class Tree:
    """Changes a real tree by numbers; what cannot be done is let be."""

    def __init__(self, root):
        self.root = root

    def paths(self):
        """Return all paths, the root first."""
        found = [self.root]
        for folder, folders, files in os.walk(self.root):
            found += [folder + b"/" + name for name in folders + files]
        return sorted(found)

    def do(self, operation, first, second):
        paths = self.paths()
        target = paths[first % len(paths)]
        folders = [path for path in paths if os.path.isdir(path) and not os.path.islink(path)]
        fresh = folders[second % len(folders)] + b"/" + NAMES[first % len(NAMES)]
        try:
            getattr(self, operation)(target, fresh, bytes([65 + second % 26]))
        except OSError:
            pass

    def write(self, _target, fresh, content):
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o644)  # it may be a fifo
        try:
            os.write(fd, content * 3)
        finally:
            os.close(fd)

    def sneak(self, target, _fresh, content):
        """Write as many bytes as there were, and set the time back."""
        before = os.lstat(target)
        if stat.S_ISREG(before.st_mode):
            with open(target, "r+b") as file:
                file.write(content)
            os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))

    def chmod(self, target, _fresh, content):
        os.chmod(target, 0o700 + content[0] % 8)

    def rename(self, target, fresh, _content):
        if target != self.root:
            os.rename(target, fresh)

    def link(self, target, fresh, _content):
        os.link(target, fresh, follow_symlinks=False)

    def symlink(self, target, fresh, _content):
        os.symlink(os.path.basename(target), fresh)

    def delete(self, target, _fresh, _content):
        if os.path.isdir(target) and not os.path.islink(target):
            if target != self.root:
                shutil.rmtree(target)
        else:
            os.unlink(target)

    def folder(self, _target, fresh, _content):
        os.mkdir(fresh)

    def fifo(self, _target, fresh, _content):
        os.mkfifo(fresh)

    def replace(self, target, fresh, _content):
        """Put something of another type where something was."""
        self.delete(target, fresh, b"")
        os.mkdir(target) if stat.S_ISREG(os.lstat(fresh).st_mode) else os.symlink(b"nowhere", target)

    def touch(self, target, _fresh, content):
        os.utime(target, ns=(0, content[0] * 10**9 + 1))


def content_of(path):
    """Return what a restore has to bring back."""
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    inside = os.readlink(path) if kind == stat.S_IFLNK else open(path, "rb").read() if kind == stat.S_IFREG else b""
    return kind, stat.S_IMODE(status.st_mode), status.st_mtime_ns, inside


def picture(ground, tree):
    return {ground.relative(path.lstrip(b"/")): content_of(path) for path in tree.paths()}


def links(tree, ground):
    """Return the groups of paths that share a file."""
    groups = {}
    for path in tree.paths():
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            groups.setdefault(status.st_ino, set()).add(ground.relative(path.lstrip(b"/")))
    return list(groups.values())


def restored(before, changes, after, ground):
    """Apply changes to a picture of the old tree, as a restore would; deletions first."""
    tree = dict(before)
    for each in changes:
        if each.kind == "deleted":
            gone = ground.relative(each.path)
            below = [path for path in tree if path.startswith(gone + b"/")]
            assert gone in tree
            assert not each.is_folder or each.entries == len(below)
            for path in [gone, *below]:
                del tree[path]
    for each in changes:
        if each.kind != "deleted":
            path = ground.relative(each.path)
            assert (path in tree) == (each.kind != "created")
            tree[path] = after[path]
    return tree


@settings(max_examples=100, deadline=None)
@given(first=st.lists(STEP, max_size=25), second=st.lists(STEP, max_size=12))
def test_the_changes_turn_the_old_tree_into_the_new_one(first, second):
    folder = os.fsencode(tempfile.mkdtemp(prefix="vmbackup-tree-"))
    try:
        ground = Ground(folder)
        tree = Tree(ground.root)
        for step in first:
            tree.do(*step)
        ground.scan()
        before, status_before = picture(ground, tree), statuses(ground, tree)
        for step in second:
            tree.do(*step)
        changes = ground.raw_changes()
        after = picture(ground, tree)
        assert restored(before, changes, after, ground) == after
        assert set(ground.names()) == set(after) - {b"."}
        saved = {ground.relative(each.path) for each in changes if each.kind not in ("deleted", "linked")}
        linked = {ground.relative(each.path) for each in changes if each.kind == "linked"}
        untouched = {path for path, status in statuses(ground, tree).items() if status_before.get(path) == status}
        assert not saved & untouched, "told without a reason"
        assert linked <= untouched
        for group in links(tree, ground):
            assert not group & saved or group <= saved | linked, "a link would be lost"
            assert group & saved or not group & linked
        assert ground.raw_changes() == []
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


def statuses(ground, tree):
    found = {}
    for path in tree.paths():
        status = os.lstat(path)
        size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
        told = (
            status.st_mode,
            status.st_ino,
            status.st_uid,
            status.st_gid,
            size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        found[ground.relative(path.lstrip(b"/"))] = told
    return found
