# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks with real processes: owners that live, die, are reborn; holders that outlive their owner."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm import owner_lock
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.owner_lock import (
    find_owner,
    hold,
    is_held,
    proves_death,
    write_lock,
)

UUID = "5012ab34-0000-1111-2222-333344445555"
ID = "20261122T010000Z-full-7f3a"
OTHER = "20261122T020000Z-full-0001"


@contextmanager
def living():
    process = subprocess.Popen(["sleep", "60"])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def lock(folder, owner, **changes):
    values = {"backup_id": ID, "controller_id": "control01", "mover_is_local": True, "owner": owner, **changes}
    write_lock(str(folder), UUID, **values)


def dead(folder, **changes):
    return proves_death(str(folder), UUID, **{"backup_id": ID, "controller_id": "control01", **changes})


def can_make_pid_namespaces():
    probe = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return shutil.which("unshare") is not None and subprocess.call(probe, stderr=subprocess.DEVNULL) == 0


@pytest.fixture
def of_dead_owner(tmp_path):
    with living() as pid:
        lock(tmp_path, pid)
    return tmp_path


def test_a_living_owner_is_not_dead(tmp_path):
    with living() as pid:
        lock(tmp_path, pid)
        assert not dead(tmp_path)


def test_an_owner_that_is_gone_is_dead(of_dead_owner):
    assert dead(of_dead_owner)


def test_an_owner_that_nobody_has_waited_for_is_dead(tmp_path):
    process = subprocess.Popen(["sleep", "60"])
    lock(tmp_path, process.pid)
    process.kill()
    while Path("/proc/{}/stat".format(process.pid)).read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z":
        pass
    assert dead(tmp_path)
    process.wait()


def test_a_pid_that_went_to_another_process_is_dead(tmp_path):
    with living() as pid:
        lock(tmp_path, pid)
        file = tmp_path / (UUID + ".lock")
        content = json.loads(file.read_text(encoding="ascii"))
        file.write_text(json.dumps({**content, "owner_start": content["owner_start"] - 1}), encoding="ascii")
        assert dead(tmp_path)


@pytest.mark.parametrize("changes", [{"backup_id": OTHER}, {"controller_id": "control02"}])
def test_the_lock_of_another_backup_or_controller_proves_nothing(of_dead_owner, changes):
    assert not dead(of_dead_owner, **changes)


def test_a_mover_elsewhere_may_live_on_without_the_owner(tmp_path):
    with living() as pid:
        lock(tmp_path, pid, mover_is_local=False)
    assert not dead(tmp_path)


def test_an_unknown_owner_proves_nothing(tmp_path):
    lock(tmp_path, None)
    assert not dead(tmp_path)


def test_no_lock_proves_nothing(tmp_path):
    assert not dead(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_damaged_lock_proves_nothing(of_dead_owner, text):
    (of_dead_owner / (UUID + ".lock")).write_bytes(text.encode("latin-1"))
    assert not dead(of_dead_owner)


def test_a_lock_from_before_a_reboot_proves_nothing(of_dead_owner, monkeypatch):
    monkeypatch.setattr(owner_lock, "_boot_id", lambda: "another boot")
    assert not dead(of_dead_owner)


@pytest.mark.skipif(not can_make_pid_namespaces(), reason="only root may make a pid namespace, and not everywhere")
@pytest.mark.parametrize("proc", ["--mount-proc", "--kill-child"])
def test_an_owner_in_another_container_is_not_taken_for_dead(tmp_path, proc):
    """A container shares the boot id with its host, not the pids; --kill-child alone leaves it the host's /proc."""
    program = "import sys; sys.path.insert(0, {!r})\n".format(str(Path(owner_lock.__file__).parents[7])) + (
        "from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm import owner_lock\n"
        "print(owner_lock.proves_death({!r}, {!r}, backup_id={!r}, controller_id='control01'))"
    ).format(str(tmp_path), UUID, ID)
    seen = ["unshare", "--pid", "--fork", proc, sys.executable, "-c", program]
    with living() as pid:
        lock(tmp_path, pid)
        assert subprocess.run(seen, stdout=subprocess.PIPE, text=True, check=True).stdout == "False\n"
    assert dead(tmp_path)


def test_a_packing_module_that_outlives_its_playbook_holds_the_lock(of_dead_owner):
    program = textwrap.dedent(
        """
        import sys
        from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.owner_lock import hold
        with hold(*sys.argv[1:]):
            print("held", flush=True)
            sys.stdin.read()
        """
    )
    root = str(Path(owner_lock.__file__).parents[7])
    command = [sys.executable, "-c", "import sys; sys.path.insert(0, {!r})\n{}".format(root, program)]
    holder = subprocess.Popen(
        [*command, str(of_dead_owner), UUID, ID], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    assert not dead(of_dead_owner)
    with pytest.raises(VmbackupError) as busy:
        lock(of_dead_owner, None, backup_id=OTHER)
    assert busy.value.code == "vm_busy"
    assert ID in busy.value.message
    holder.kill()
    holder.wait()
    assert dead(of_dead_owner)


def test_holding_another_backups_lock_is_refused(tmp_path):
    lock(tmp_path, None)
    with pytest.raises(VmbackupError) as busy, hold(str(tmp_path), UUID, OTHER):
        pass
    assert busy.value.code == "vm_busy"


def test_holding_without_a_lock_file_makes_one(tmp_path):
    with hold(str(tmp_path / "new"), UUID, ID):
        assert (tmp_path / "new" / (UUID + ".lock")).is_file()


def test_a_look_tells_whether_a_lock_is_held_and_leaves_nothing(tmp_path):
    assert not is_held(str(tmp_path / "none"), UUID) and not (tmp_path / "none").exists()
    with hold(str(tmp_path), UUID, ID):
        assert is_held(str(tmp_path), UUID)
    assert not is_held(str(tmp_path), UUID)
    with hold(str(tmp_path), UUID, ID):
        pass


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("", encoding="ascii")
    with pytest.raises(VmbackupError) as refused:
        lock(tmp_path / "file", None)
    assert refused.value.code == "lock_dir_unusable"
    assert "lock_dir" in refused.value.hint


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "target").write_text("precious", encoding="ascii")
    (tmp_path / (UUID + ".lock")).symlink_to(tmp_path / "target")
    with pytest.raises(VmbackupError):
        lock(tmp_path, None)
    assert (tmp_path / "target").read_text(encoding="ascii") == "precious"


def owner_of_a_child_of(tmp_path, names):
    """Start a chain of processes that carry `names`, the last one a plain child; return its owner and all pids."""
    program = tmp_path / "link.py"
    program.write_text(
        textwrap.dedent(
            """
            import os, subprocess, sys
            print(os.getpid(), flush=True)
            rest = sys.argv[1:]
            if rest:
                subprocess.run([sys.executable, rest[0], *rest[1:]])
            else:
                sys.stdin.read()
            """
        ),
        encoding="ascii",
    )
    links = []
    for number, name in enumerate(names):
        folder = tmp_path / "ansible-tmp-{}".format(number)
        folder.mkdir()
        links.append(str(folder / name))
        (folder / name).symlink_to(program)
    chain = subprocess.Popen([sys.executable, *links], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    pids = [int(chain.stdout.readline()) for _name in names]
    owner = find_owner(pids[-1])
    chain.communicate("")
    return owner, pids


def test_the_parent_of_the_worker_is_the_owner(tmp_path):
    owner, pids = owner_of_a_child_of(
        tmp_path, ["ansible-runner", "ansible-playbook", "ansible-playbook", "AnsiballZ_vm_snapshot.py"]
    )
    assert owner == pids[1]


def test_a_worker_without_an_ansible_parent_is_its_own_owner(tmp_path):
    owner, pids = owner_of_a_child_of(tmp_path, ["cron", "ansible", "AnsiballZ_vm_snapshot.py"])
    assert owner == pids[1]


def test_without_ansible_there_is_no_owner(tmp_path):
    owner, _pids = owner_of_a_child_of(tmp_path, ["pytest_like", "AnsiballZ_vm_snapshot.py"])
    assert owner is None
