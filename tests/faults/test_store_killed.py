# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The receiver is killed (-9) at each step of a commit: nothing partial is visible, and a repeated commit succeeds."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.store import commit, receiver, writer_lock
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.layout import VmFolder
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.link import LocalLink
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.records import last_arrival
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.sender import send_backup
from tests.integration.opened_backup import committed
from tests.integration.staged_backup import noise, stage

VM = "web01"
STEPS = {
    "before verifying": (receiver, "verify_incoming", "before"),
    "after verifying": (receiver, "verify_incoming", "after"),
    "after the record of arrival": (receiver, "stamp_arrival", "after"),
    "before the rename": (commit, "rename_durably", "before"),
    "after the rename, before it is flushed": (commit, "rename_durably", "half"),
    "after the rename": (receiver, "publish", "after"),
    "before the lock is given up": (writer_lock.WriterLock, "release", "before"),
    "before the answer": (writer_lock.WriterLock, "release", "after"),
}


def dying(real: Callable[..., Any], moment: str) -> Callable[..., Any]:
    """Return `real` in a process that is killed before, in the middle of, or after it."""

    def call(*arguments: Any, **named: Any) -> None:
        if moment == "half":
            Path(arguments[0]).rename(arguments[1])
        elif moment == "after":
            real(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    return call


def commit_and_die(store: Path, staged: Path, step: str) -> None:
    """Send all bytes and commit, in a child that is killed at a step."""
    child = os.fork()
    if child == 0:
        try:
            link = LocalLink(str(store))
            for file in staged.iterdir():
                link.put(VM, staged.name, file.name, 0, file.read_bytes())
            owner, name, moment = STEPS[step]
            setattr(owner, name, dying(getattr(owner, name), moment))
            link.commit(VM, staged.name, hashlib.sha256((staged / "SHA256SUMS").read_bytes()).hexdigest())
        finally:
            os._exit(1)  # not reached: the step was
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.parametrize("step", STEPS)
def test_a_commit_that_was_killed_is_whole_or_absent_and_can_be_repeated(tmp_path: Path, step: str) -> None:
    store, staged = tmp_path / "store", stage(tmp_path / "staging", VM, noise(1 << 20))
    commit_and_die(store, staged, step)
    for backup in committed(store, VM):
        subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd=backup, check=True)
    was_visible = bool(committed(store, VM))
    with LocalLink(str(store)) as link:
        sent = send_backup(link, str(staged), VM, staged.name)
        assert link.tip(VM).tip == staged.name
    assert (sent.bytes_sent, sent.already_there) == (0, was_visible)
    (backup,) = committed(store, VM)
    assert {each.name: each.read_bytes() for each in backup.iterdir()} == {
        each.name: each.read_bytes() for each in staged.iterdir()
    }
    assert [each for each in (store / VM / ".incoming").iterdir() if each.is_dir()] == []
    assert last_arrival(VmFolder(str(store), VM).records, staged.name) is not None
