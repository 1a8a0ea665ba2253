# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store's disk is full, refuses writes, or turns a bit over; a key's limits are reached."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.sender import send_backup
from tests.integration.opened_backup import committed
from tests.integration.staged_backup import noise, size_of, stage

from .stores import receiver

VM = "web01"
MiB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.call(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]):
        pytest.skip("mounting a disk needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def refusal(tmp_path: Path, store: Path, staged: Path, **grant: int) -> VmbackupError:
    with receiver(tmp_path, store, **grant) as link, pytest.raises(VmbackupError) as caught:
        send_backup(link, str(staged), VM, staged.name)
    assert committed(store, VM) == [] and staged.is_dir()
    return caught.value


def test_a_full_store_says_so_and_the_copy_goes_on_when_there_is_room(tmp_path: Path, small_disk: Path) -> None:
    staged = stage(tmp_path / "staging", VM, noise(8 * MiB))
    error = refusal(tmp_path, small_disk, staged)
    assert error.code == "store_full" and str(small_disk) in error.message and "prune" in error.hint
    assert refusal(tmp_path, small_disk, staged).code == "store_full"
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    with receiver(tmp_path, small_disk) as link:
        sent = send_backup(link, str(staged), VM, staged.name)
    assert 0 < sent.bytes_sent < size_of(staged) - 2 * MiB
    assert (committed(small_disk, VM)[0] / "archive.tar.gz").read_bytes() == noise(8 * MiB)


def test_a_store_that_is_full_at_the_very_end_commits_nothing(tmp_path: Path, small_disk: Path) -> None:
    staged = stage(tmp_path / "staging", VM, noise(MiB))
    with receiver(tmp_path, small_disk) as link:
        for file in staged.iterdir():
            link.put(VM, staged.name, file.name, 0, file.read_bytes())
        link.settle()
        free = os.statvfs(small_disk)
        (small_disk / "ballast").write_bytes(bytes(free.f_bavail * free.f_bsize))
        with pytest.raises(VmbackupError) as caught:
            send_backup(link, str(staged), VM, staged.name)
        assert caught.value.code == "store_full" and committed(small_disk, VM) == []
        assert list((small_disk / VM).glob(".records/.*")) == []
        (small_disk / "ballast").unlink()
        assert send_backup(link, str(staged), VM, staged.name).bytes_sent == 0


def test_a_store_that_refuses_writes_says_so(tmp_path: Path, small_disk: Path) -> None:
    staged = stage(tmp_path / "staging", VM, noise(1000))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    error = refusal(tmp_path, small_disk, staged)
    assert error.code == "store_not_writable" and str(small_disk) in error.message


@pytest.mark.parametrize(
    ("limit", "code"), [("quota_bytes", "store_quota_exceeded"), ("in_flight_bytes", "store_in_flight_exceeded")]
)
def test_a_limit_of_a_key_ends_the_copy_and_a_higher_one_lets_it_go_on(tmp_path: Path, limit: str, code: str) -> None:
    staged, store = stage(tmp_path / "staging", VM, noise(3 * MiB)), tmp_path / "store"
    error = refusal(tmp_path, store, staged, **{limit: 2 * MiB})
    assert error.code == code and "key mover" in error.message and limit in error.hint
    with receiver(tmp_path, store, **{limit: 4 * MiB}) as link:
        assert send_backup(link, str(staged), VM, staged.name).bytes_sent <= size_of(staged) - MiB


def test_a_bit_that_turned_over_on_the_store_costs_one_file_sent_again(tmp_path: Path) -> None:
    staged, store = stage(tmp_path / "staging", VM, noise(2 * MiB)), tmp_path / "store"
    with receiver(tmp_path, store) as link:
        for file in staged.iterdir():
            for start in range(0, file.stat().st_size, MiB):
                link.put(VM, staged.name, file.name, start, file.read_bytes()[start : start + MiB])
        link.settle()
        flip(store / VM / ".incoming" / staged.name / "archive.tar.gz")
        sent = send_backup(link, str(staged), VM, staged.name)
    assert sent.bytes_sent == 2 * MiB
    assert (committed(store, VM)[0] / "archive.tar.gz").read_bytes() == noise(2 * MiB)


def test_a_bit_that_turned_over_in_the_staged_copy_keeps_it_out_of_the_store(tmp_path: Path) -> None:
    staged, store = stage(tmp_path / "staging", VM, noise(2 * MiB)), tmp_path / "store"
    flip(staged / "archive.tar.gz")
    error = refusal(tmp_path, store, staged)
    assert error.code == "staged_backup_damaged"
    assert "archive.tar.gz" in error.message and str(staged) in error.message and "new backup" in error.hint


def flip(path: Path) -> None:
    """Turn one bit over in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 16]))
