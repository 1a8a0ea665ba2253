# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Phase III by the real playbooks: a guest's files over SSH, into the store by the guest's own key, and back by plain tar."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.link import as_record
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.ssh_link import SshLink
from tests.faults.runs import Run, playbook_argv
from tests.integration.opened_backup import committed, incoming, manifest
from tests.integration.staged_backup import fresh_id, lab_store
from tests.lab.site import LabSite
from tests.tree_picture import picture

from .guest_files import Guest, change, play

GUESTS = 10  # as many as tests take one


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
