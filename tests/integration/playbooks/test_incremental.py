# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Phase III by the real playbooks: a guest's files over SSH, into the store by the guest's own key, and back by plain tar."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.link import as_record
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.ssh_link import SshLink
from tests.faults.runs import Run, playbook_argv
from tests.integration.opened_backup import committed, incoming, manifest
from tests.integration.staged_backup import fresh_id, lab_store
from tests.lab.site import LabSite
from tests.tree_picture import differences, picture

GUESTS = 10  # as many as tests take one
AS_ROOT = os.geteuid() == 0


def grow(tree: Path) -> None:
    """Make a tree with one of everything."""
    for folder in ("etc", "srv/data", "srv/moved", "srv/gone/deep"):
        (tree / folder).mkdir(parents=True)
    for name in ("etc/kept", "etc/rewritten", "etc/hidden", "etc/mode", "srv/data/linked", "srv/moved/inside",
                 "srv/gone/deep/file", "srv/becomes_folder"):  # fmt: skip
        (tree / name).write_bytes(name.encode() * 500)
    os.link(tree / "srv/data/linked", tree / "etc/link")
    os.link(tree / "srv/moved/inside", tree / "etc/link_into_moved")
    (tree / "etc/symlink").symlink_to("kept")
    (tree / "etc/other").symlink_to("kept")


def change(tree: Path) -> None:
    """Change it in every way that has a name."""
    (tree / "etc/created").write_text("new")
    (tree / "etc/rewritten").write_text("other content, other size")
    hidden = tree / "etc/hidden"
    before = hidden.stat()
    hidden.write_bytes(b"X" * before.st_size)
    os.utime(hidden, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if nothing had been
    (tree / "etc/mode").chmod(0o4711)
    (tree / "srv/data/linked").write_text("both names see this")
    (tree / "srv/moved").rename(tree / "srv/renamed")
    shutil.rmtree(tree / "srv/gone")
    (tree / "srv/becomes_folder").unlink()
    (tree / "srv/becomes_folder").mkdir()
    (tree / "srv/becomes_folder/file").write_text("inside")
    (tree / "etc/other").unlink()
    (tree / "etc/other").symlink_to("created")
    os.mkfifo(tree / "srv/fifo")
    (tree / "srv/data" / os.fsdecode(b"not-utf8-\xff\n")).write_text("odd name")
    (tree / "srv/data" / ("long" * 50)).mkdir()
    (tree / "srv/data" / ("long" * 50) / ("er" * 100)).write_text("deep")
    with (tree / "srv/data/sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"in the middle")
    for name, seconds in (("old", -(86400 * 365 * 5)), ("far", 86400 * 365 * 100)):
        (tree / "srv" / name).write_text(name)
        os.utime(tree / "srv" / name, (seconds, seconds))
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(tree / "srv", os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{here}/socket")
        finally:
            os.close(here)
    if AS_ROOT:
        os.chown(tree / "etc/created", 12345, 3_000_000_000)
        os.setxattr(tree / "etc/created", "user.colour", b"blue\0=%")
        os.mknod(tree / "srv/device", 0o600 | 0o020000, os.makedev(1, 3))


class Guest:
    """A VM, a tree that stands for its files, and a copy of that tree to which backups are applied."""

    def __init__(self, lab: LabSite, name: str, folder: Path, **variables: Any) -> None:
        self.lab, self.name = lab, name
        self.tree, self.target = folder / "tree", folder / "target"
        grow(self.tree)
        self.restored = self.target / str(self.tree).lstrip("/")
        self.restored.parent.mkdir(parents=True)
        subprocess.run(["cp", "-a", str(self.tree), str(self.restored)], check=True)
        lab.esx["esx1"].control.create_vm(name, disks=[{"size_mb": 4, "fill_mb": 1}])
        own = {"vmbackup_baseline": True, "vmbackup_file_paths": [str(self.tree)]}
        lab.add_guest(name, "esx1", **{**own, **variables})

    def remove(self) -> None:
        self.lab.remove_guest(self.name)
        self.lab.esx["esx1"].control.destroy_vm(self.name)

    def play(self, playbook: str, *args: str, rc: int = 0) -> str:
        return play(self.lab, playbook, "--limit", self.name, *args, rc=rc)

    def full(self) -> str:
        """Return the id of its newest full."""
        return [path.name for path in committed(self.lab.store_root, self.name) if "-full-" in path.name][-1]

    def incrementals(self) -> list[Path]:
        return [path for path in committed(self.lab.store_root, self.name) if "-incremental-" in path.name]

    def apply(self, backup: Path) -> None:
        """Bring the restored tree to a backup's state by the very commands of its RECOVER.txt."""
        subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=backup, check=True)
        lines = [line.strip() for line in (backup / "RECOVER.txt").read_text().splitlines() if "TARGET" in line]
        commands = [
            line.replace("TARGET", shlex.quote(str(self.target)))
            for line in lines
            if line.startswith(("python3", "tar"))
        ]
        assert len(commands) == 2
        for command in commands:
            subprocess.run(["bash", "-c", command], cwd=backup, check=True)

    def require_restored(self) -> None:
        live = picture(self.tree)
        socket_name = b"srv/socket"
        live.pop(socket_name, None)
        assert differences(live, picture(self.restored)) == {}


def play(lab: LabSite, playbook: str, *args: str, rc: int = 0) -> str:
    """Run a playbook to its end, as ansible-playbook does; return what it said."""
    argv = playbook_argv(playbook, args=args)
    env = {**os.environ, **lab.environment}
    done = subprocess.run(
        argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == rc, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def prepared(lab: LabSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Guest]]:
    """Guests that were set up and backed up in full together, one for each test."""
    guests = [Guest(lab, f"files{number}", tmp_path_factory.mktemp("guest")) for number in range(GUESTS)]
    limit = ("--limit", ",".join(guest.name for guest in guests), "--forks", "5")
    play(lab, "guest_setup.yml", *limit)
    play(lab, "full_backup.yml", *limit)
    yield list(guests)
    for guest in guests:
        guest.remove()


@pytest.fixture
def guest(prepared: list[Guest]) -> Guest:
    return prepared.pop()


def names_in(backup: Path) -> set[str]:
    listed = subprocess.run(["tar", "tzf", str(backup / "archive.tar.gz")], check=True, capture_output=True, text=True)
    return {line.rstrip("/") for line in listed.stdout.splitlines() if ".vmbackup" not in line}


def test_an_incremental_after_a_full_holds_exactly_what_changed(guest: Guest) -> None:
    change(guest.tree)
    done = guest.play("incremental_backup.yml")
    (backup,) = guest.incrementals()
    told = manifest(backup)
    full = guest.full()
    assert (told["parent"], told["base"], told["kind"], told["consistency"]) == (full, full, "incremental", "files")
    assert told["vm"]["instance_uuid"], "taken over from the full"
    prefix = str(guest.tree).lstrip("/")
    deleted = {os.path.relpath(name, prefix) for name in told["deleted"]}
    assert deleted == {"srv/gone", "srv/moved", "srv/becomes_folder"}
    files = {os.path.relpath(name, prefix) for name in names_in(backup)}
    for name in ("etc/created", "etc/rewritten", "etc/hidden", "etc/mode", "etc/link", "srv/data/linked",
                 "srv/renamed/inside", "etc/link_into_moved", "srv/becomes_folder/file", "srv/fifo", "etc/other"):  # fmt: skip
        assert name in files, name
    for name in ("etc/kept", "etc/symlink", "srv/gone", "srv/socket"):
        assert name not in files, name
    assert any(each["kind"] == "socket" and each["what"].endswith("srv/socket") for each in told["left_out"])
    guest.apply(backup)
    guest.require_restored()
    assert "files packed" in done


def test_a_chain_of_incrementals_and_one_without_a_change(guest: Guest) -> None:
    for number in range(3):
        (guest.tree / f"etc/new{number}").write_text(str(number))
        if number == 1:
            change(guest.tree)
        guest.play("incremental_backup.yml")
    for _again in range(2):  # what was touched just before a scan is saved once more by the next one
        guest.play("incremental_backup.yml")
    backups = guest.incrementals()
    parents = [manifest(backup)["parent"] for backup in backups]
    assert parents[1:] == [backup.name for backup in backups[:-1]]
    last = manifest(backups[-1])
    assert last["changes"]["files_saved"] == 0 and last["deleted"] == []
    for backup in backups:
        guest.apply(backup)
    guest.require_restored()


def test_a_differential_stands_on_the_full(guest: Guest) -> None:
    (guest.tree / "etc/one").write_text("1")
    guest.play("incremental_backup.yml")
    change(guest.tree)
    guest.play("incremental_backup.yml", "-e", "vmbackup_file_level=differential")
    differential = guest.incrementals()[-1]
    told = manifest(differential)
    assert told["parent"] == told["base"]
    guest.apply(differential)
    guest.require_restored()


def test_without_a_baseline_it_says_what_is_due_and_saves_all_when_told(lab: LabSite, tmp_path: Path) -> None:
    guest = Guest(lab, "nobaseline", tmp_path, vmbackup_baseline=False)
    try:
        guest.play("guest_setup.yml")
        done = guest.play("incremental_backup.yml", rc=2)
        assert '"code": "full_due"' in done and "vmbackup_complete_without_baseline" in done
        guest.play("full_backup.yml")
        assert "has no index of" in guest.play("incremental_backup.yml", rc=2)
        assert guest.incrementals() == []
        guest.play("incremental_backup.yml", "-e", "vmbackup_complete_without_baseline=true")
        (backup,) = guest.incrementals()
        shutil.rmtree(guest.restored)
        guest.apply(backup)
        guest.require_restored()
    finally:
        guest.remove()


@pytest.mark.parametrize("way", ["staged", "streamed"])
def test_a_guest_that_cannot_reach_the_store_sends_through_a_tunnel(guest: Guest, way: str) -> None:
    change(guest.tree)
    if guest.lab.guest.namespace and guest.lab.store.namespace:
        guest.lab.guest.namespace.part(guest.lab.store.namespace)
    try:
        options = ("-e", f"vmbackup_guest_way={way}", "-e", "vmbackup_store_timeout=4", "-e", "vmbackup_retry_for=0")
        if guest.lab.guest.namespace:
            assert "store_unreachable" in guest.play("incremental_backup.yml", *options, rc=2)
        guest.play("incremental_backup.yml", *options, "-e", "vmbackup_guest_route=tunnel")
    finally:
        if guest.lab.guest.namespace:
            guest.lab.guest.namespace.restore()
    (backup,) = guest.incrementals()
    guest.apply(backup)
    guest.require_restored()


def test_check_mode_says_what_would_be_saved_and_touches_nothing(guest: Guest) -> None:
    change(guest.tree)
    before = picture(guest.lab.folder / "guest-state")
    done = guest.play("incremental_backup.yml", "--check", "-v")
    assert "would save what changed since" in done and "etc/created" in done
    assert guest.incrementals() == [] and picture(guest.lab.folder / "guest-state").keys() == before.keys()


def test_a_guest_that_does_not_answer_costs_a_full_its_baseline_and_does_not_stop_the_rest(
    guest: Guest, lab: LabSite, tmp_path: Path
) -> None:
    lost = Guest(lab, "lost", tmp_path, ansible_port=1)
    unwanted = Guest(lab, "unwanted", tmp_path / "unwanted", vmbackup_file_paths=[])
    try:
        done = lost.play("full_backup.yml")
        assert "no baseline for incrementals: " in done and len(committed(lab.store_root, lost.name)) == 1
        names = ",".join((guest.name, lost.name, unwanted.name))
        done = play(lab, "incremental_backup.yml", "--limit", names, rc=2)
        assert f"{lost.name} is unreachable" in done and "2 of 3 good" in done
        assert "vmbackup_file_paths is empty" in done
        assert len(guest.incrementals()) == 1
    finally:
        lost.remove()
        unwanted.remove()


def test_the_guests_own_key_reads_nothing_deletes_nothing_and_touches_no_other_vm(guest: Guest, lab: LabSite) -> None:
    guest.play("incremental_backup.yml")
    (backup,) = guest.incrementals()
    (key,) = (lab.folder / "guest-state").glob(f"key-{hashlib.sha256(guest.name.encode()).hexdigest()[:12]}")
    before = picture(lab.store_root)
    login = [
        "-i",
        str(key),
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "BatchMode=yes",
        "-o",
        f"UserKnownHostsFile={lab.folder}/known_hosts",
    ]
    at = f"{lab.store.user}@{lab.store.address}"
    wanted = f"{backup}/archive.tar.gz"
    for argv in (
        ["ssh", *login, "-p", str(lab.store.port), at, f"cat {wanted}; rm -rf {backup}"],
        ["scp", *login, "-P", str(lab.store.port), f"{at}:{wanted}", str(guest.target)],
        ["sftp", *login, "-P", str(lab.store.port), f"{at}:{wanted}", str(guest.target)],
    ):
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
        assert b"vmbackup" in done.stdout + done.stderr or done.returncode != 0
        assert wanted.encode() not in done.stdout and not (guest.target / "archive.tar.gz").exists()
    address = lab_store(lab, key_file=str(key))
    full = manifest(backup)["parent"]
    for refused in (
        lambda link: link.size(guest.name, full),
        lambda link: link.put(guest.name, fresh_id("full"), "archive.tar.gz", 0, b"x") or link.settle(),
        lambda link: link.tip("another"),
        lambda link: link.note(guest.name, as_record("failed", None, {})),
        lambda link: link.commit(guest.name, backup.name, "0" * 64, True),
    ):
        with SshLink(address) as link, pytest.raises(VmbackupError) as caught:
            refused(link)
        assert caught.value.code == "not_granted"
    assert picture(lab.store_root) == before


def holder(lab: LabSite, name: str) -> int:
    """Return the pid of the module that holds a guest's lock, 0 if none does: sshd starts it, not the playbook."""
    lock = lab.folder / "guest-state" / name / "lock"
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if entry.readlink() == lock:
                return int(entry.parts[2])
    return 0


@pytest.mark.parametrize("step", ["scan", "send"])
def test_a_module_that_is_killed_on_the_guest_fails_its_guest_and_the_next_run_has_it_all(
    guest: Guest, lab: LabSite, tmp_path: Path, step: str
) -> None:
    change(guest.tree)
    (guest.tree / "big").write_bytes(os.urandom(4 << 20))
    slow = {"vmbackup_guest_rate_limit": 50000}
    run = Run(lab, tmp_path, playbook_argv("incremental_backup.yml", args=("--limit", guest.name), variables=slow))
    try:
        if step == "send":
            run.until(
                "a copy grows", lambda: [each for each in incoming(lab.store_root, guest.name) if "incremental" in each]
            )
        pid = run.until("a module holds the guest", lambda: holder(lab, guest.name))
        os.kill(pid, signal.SIGKILL)
        assert run.wait() == 2, run.output
    finally:
        run.close()
    assert guest.incrementals() == []
    (guest.tree / "etc/later").write_text("after the kill")
    guest.play("incremental_backup.yml")
    for backup in guest.incrementals():
        guest.apply(backup)
    guest.require_restored()
