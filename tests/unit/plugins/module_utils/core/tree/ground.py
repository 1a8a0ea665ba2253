# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real tree on the disk to scan, change and scan again."""

from __future__ import annotations

import os
import time

from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.index import IndexReader
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.rules import ScanRules
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.survey import survey

HOUR_NS = 3600 * 10**9
INFO = {"vm": "web01", "backup_id": "20261125T010000Z-incremental-02c9"}


class Ground:
    """A tree and the indexes of its scans. Paths of changes and entries are told relative to the tree."""

    def __init__(self, folder):
        """folder: bytes, there and empty."""
        self.root = folder + b"/tree"
        os.mkdir(self.root)
        self.scratch = os.fsdecode(folder)
        self.inside = self.root.lstrip(b"/")
        self.scans = 0
        self.index = None

    def path(self, name):
        return self.root + b"/" + name

    def write(self, name, content=b"x"):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def scan(self, now_ns=None, baseline=False, against="last", **rules):
        """Scan; unless told otherwise at a time when nothing counts as just changed. Return the survey."""
        wait_for_tick(self.scratch)
        self.scans += 1
        new = f"{self.scratch}/{self.scans}.idx"
        old = self.index if against == "last" else against
        rules.setdefault("paths", (os.fsdecode(self.root),))
        rules["exclude"] = tuple(
            os.fsdecode(b"/" + self.inside + b"/") + p[1:] if p.startswith("/") else p for p in rules.get("exclude", ())
        )
        moment = time.time_ns() + HOUR_NS if now_ns is None else now_ns
        found = survey(ScanRules(**rules), old, new, new + ".changes", INFO, moment, baseline)
        self.index = new
        wait_for_tick(self.scratch)
        return found

    def changes(self, **options):
        """Scan and return the changes within the tree: (kind, path, reason), sorted by path."""
        return sorted((each.kind, self.relative(each.path), each.reason) for each in self.raw_changes(**options))

    def raw_changes(self, **options):
        return [each for each in self.scan(**options).changes() if self.relative(each.path) is not None]

    def relative(self, path):
        if path == self.inside:
            return b"."
        return path[len(self.inside) + 1 :] if path.startswith(self.inside + b"/") else None

    def names(self, index=None):
        """Return {path: row} of an index, within the tree, the tree's own folder aside."""
        found = {}
        with IndexReader(index or self.index) as reader:
            for record in reader:
                for name, row in record.open().entries():
                    path = self.relative(record.path + b"/" + name)
                    if path not in (None, b"."):
                        found[path] = row
        return found


def wait_for_tick(folder):
    """Wait until the file system's clock moves on, so that what comes next has another ctime."""
    probe = os.path.join(folder, "probe")
    first = None
    while True:
        with open(probe, "w"):
            now = os.stat(probe).st_ctime_ns
        os.unlink(probe)
        if first is None:
            first = now
        elif now != first:
            return
        time.sleep(0.001)
