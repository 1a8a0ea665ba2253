# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest's backup is killed (-9) at each step: the next one holds everything since the last commit, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.store import commit, folder, incoming, receiver, sender
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.link import LocalLink
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.names import new_backup_id
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree import guest_state, incremental, survey
from ansible_collections.vmbackup.esx.plugins.modules import archive_copy, file_archive, file_diff
from tests.integration.opened_backup import committed
from tests.integration.staged_backup import noise, stage
from tests.tree_picture import differences, picture

VM = "web01"
# step: (owner, name, moment, whether the store has the backup by then)
STEPS = {
    "before the scan": (survey.Scanner, "walk", "before", False),
    "after the scan": (survey, "settle", "after", False),
    "with the changes listed": (survey, "compare", "after", False),
    "before packing": (incremental, "pack_changes", "before", False),
    "with everything packed": (incremental, "pack_changes", "after", False),
    "before the staged copy appears": (incoming, "publish", "before", False),
    "with the staged copy made": (incoming, "publish", "after", False),
    "while sending": (sender._Transfer, "_send_file", "after", False),
    "before the store verifies": (commit, "damaged_files", "before", False),
    "after the commit": (sender._Transfer, "attempt", "after", True),
    "before the index is promoted": (guest_state.GuestState, "promote", "before", True),
    "with the index promoted": (guest_state.GuestState, "promote", "after", True),
    "before the staged copy goes": (folder.StoreTree, "remove", "before", True),
    "while the staged copy goes": (folder, "rename_durably", "after", True),
}
STREAMED = {
    "while streaming": (incremental, "_copy_index", "before", False),
    "before the index waits": (guest_state.GuestState, "keep_pending", "before", False),
    "before the commit": (commit, "damaged_files", "before", False),
    "after the commit": (receiver, "publish", "after", True),
    "before the index is promoted": (guest_state.GuestState, "promote", "before", True),
    "with the index promoted": (guest_state.GuestState, "promote", "after", True),
}


class Site:
    """A guest's tree, its state, its staging folder and a store, all folders here; the modules run in this process."""

    def __init__(self, folder_: Path, way: str) -> None:
        self.tree, self.store, self.staging = folder_ / "tree", folder_ / "store", folder_ / "staging"
        self.target = folder_ / "target"
        self.before = self.target / str(self.tree).lstrip("/")
        self.way = way
        self._start, self._runs = datetime.now(timezone.utc), 0
        (self.tree / "sub").mkdir(parents=True)
        for number in range(20):
            (self.tree / "sub" / str(number)).write_text(str(number))
        full = stage(folder_ / "mover", VM, noise(1000))
        rules = {"vm": VM, "paths": [str(self.tree)], "exclude": [], "exclude_if_present": [], "exclude_caches": True,
                 "cross_filesystems": False, "state_dir": str(folder_ / "state"), "priority": "normal"}  # fmt: skip
        self._rules = rules
        apply(file_diff, {**rules, "baseline": True, "backup_id": full.name})
        shutil.copytree(full, self.store / VM / full.name)
        self.before.parent.mkdir(parents=True)
        subprocess.run(["cp", "-a", str(self.tree), str(self.before)], check=True)

    def backup(self) -> None:
        """Run what the role runs on the guest."""
        store = {"host": None, "path": str(self.store)}
        common = {"store": store, "rate_limit": None, "retry_for": 0}
        packing = {"level": "incremental", "complete_without_baseline": False, "allow_unreadable": False, "way": self.way,
                   "destination": str(self.staging), "codec": "zlib", "codec_level": None, "threads": 1}  # fmt: skip
        apply(file_archive, {**self._rules, **common, **packing, "backup_id": self._next_id()})
        if self.way == "staged":
            sending = {"vm": VM, "backup_id": None, "source": str(self.staging), "keep_staged": False, "adopt": False}
            apply(archive_copy, {**common, **sending, "state_dir": self._rules["state_dir"]})

    def _next_id(self) -> str:
        """Return an id a second after the last one: ids of one VM are hours apart, not moments."""
        self._runs += 1
        return new_backup_id(self._start + timedelta(seconds=self._runs), "incremental", os.urandom(3).hex())

    def backup_and_die(self, owner: Any, name: str, moment: str) -> None:
        child = os.fork()
        if child == 0:
            try:
                setattr(owner, name, dying(getattr(owner, name), moment))
                self.backup()
            finally:
                os._exit(1)  # not reached: the step was
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        self._runs += 1  # the child's count went with it

    def incrementals(self) -> list[Path]:
        return [path for path in committed(self.store, VM) if "-incremental-" in path.name]

    def require_restored(self) -> None:
        """Follow the chain by parents from its newest backup, and compare what it makes of the tree before."""
        by_id = {path.name: json.loads((path / "manifest.json").read_text()) for path in self.incrementals()}
        chain: list[str] = []
        with LocalLink(str(self.store)) as link:
            at = link.tip(VM).tip
        while at in by_id:
            chain.insert(0, at)
            at = by_id[at]["parent"]
        for backup_id in chain:
            subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=self.store / VM / backup_id, check=True)
            for name in by_id[backup_id]["deleted"]:
                gone = self.target / name
                shutil.rmtree(gone) if name.endswith("/") else gone.unlink()
            archive = str(self.store / VM / backup_id / "archive.tar.gz")
            subprocess.run(["tar", "xzf", archive, "-C", str(self.target)], check=True)
        assert differences(picture(self.tree), picture(self.before)) == {}


def apply(module: Any, params: dict[str, Any]) -> None:
    plan = module.make_plan(params)
    if plan.apply is not None:
        plan.apply()


def dying(real: Callable[..., Any], moment: str) -> Callable[..., Any]:
    """Return `real` in a process that is killed before or after it."""

    def call(*arguments: Any, **named: Any) -> None:
        if moment == "after":
            real(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    return call


@pytest.mark.parametrize(
    ("way", "step"), [*(("staged", step) for step in STEPS), *(("streamed", step) for step in STREAMED)]
)
def test_a_backup_that_was_killed_loses_nothing(tmp_path: Path, way: str, step: str) -> None:
    site = Site(tmp_path, way)
    (site.tree / "sub" / "first").write_text("before the first backup")
    site.backup()
    (site.tree / "sub" / "second").write_text("before the one that is killed")
    (site.tree / "sub" / "3").unlink()
    owner, name, moment, arrived = (STEPS if way == "staged" else STREAMED)[step]
    site.backup_and_die(owner, name, moment)
    assert len(site.incrementals()) == 1 + arrived
    (site.tree / "sub" / "third").write_text("after it")
    (site.tree / "sub").rename(site.tree / "renamed")
    site.backup()
    assert committed(site.staging, VM) == []
    site.require_restored()
    assert len(site.incrementals()) in (2, 3)
