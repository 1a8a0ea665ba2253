# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The receiver in a process of its own, as sshd starts it, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.layout import VmFolder
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.names import new_backup_id
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.records import last_arrival, read_records
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.sender import send_backup

VM = "web 01"


def refused(code: str, act: Callable[[], Any]) -> None:
    with pytest.raises(VmbackupError) as caught:
        act()
    assert caught.value.code == code


def test_a_staged_backup_arrives_whole_once_and_is_stamped(stage: Any, store: Path, wire: Any, new_id: Any) -> None:
    staged = stage(new_id())
    with wire() as link:
        sent = send_backup(link, str(staged), VM, new_id())
        assert sent.bytes_sent == sum(file.stat().st_size for file in staged.iterdir())
        standing = link.tip(VM)
        assert (standing.tip, standing.base) == (new_id(), new_id())
        assert send_backup(link, str(staged), VM, new_id()).already_there
    place = store / "web%2001" / new_id()
    subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=place, check=True, capture_output=True)
    assert last_arrival(VmFolder(str(store), VM).records, new_id()) is not None
    assert place.stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in place.iterdir())


def test_a_flipped_bit_is_refused_and_sent_again_when_the_source_is_good(
    stage: Any, store: Path, wire: Any, new_id: Any
) -> None:
    staged = stage(new_id())
    archive = staged / "archive.tar.gz"
    good = archive.read_bytes()
    archive.write_bytes(b"y" + good[1:])
    with wire() as link:
        refused("staged_backup_damaged", lambda: send_backup(link, str(staged), VM, new_id()))
        assert not (store / "web%2001" / new_id()).exists()
        archive.write_bytes(good)
        assert send_backup(link, str(staged), VM, new_id()).bytes_sent == len(good)


def test_the_same_id_with_other_content_is_refused(stage: Any, wire: Any, new_id: Any, tmp_path: Path) -> None:
    staged = stage(new_id())
    with wire() as link:
        send_backup(link, str(staged), VM, new_id())
        refused("backup_id_taken", lambda: link.commit(VM, new_id(), "0" * 64))
        refused("backup_id_taken", lambda: link.put(VM, new_id(), "tree.idx", 0, b"x") or link.settle())


def test_bytes_are_appended_only(wire: Any, new_id: Any) -> None:
    with wire() as link:
        link.put(VM, new_id(), "archive.tar.gz", 0, b"abc")
        link.settle()
        for offset in (0, 2, 4):
            refused(
                "put_out_of_order",
                lambda offset=offset: link.put(VM, new_id(), "archive.tar.gz", offset, b"d") or link.settle(),
            )
        assert link.size(VM, new_id()).sizes == {"archive.tar.gz": 3}


def test_one_writer_at_a_time(wire: Any, new_id: Any) -> None:
    with wire() as first, wire() as second:
        first.put(VM, new_id(), "archive.tar.gz", 0, b"abc")
        first.settle()
        refused("backup_in_use", lambda: second.size(VM, new_id()))
        first.close()
        assert second.size(VM, new_id()).state == "partial"


def test_a_silent_writer_is_broken_off_and_can_write_no_more(wire: Any, store: Path, new_id: Any) -> None:
    with wire() as first, wire() as second:
        first.put(VM, new_id(), "archive.tar.gz", 0, b"abc")
        first.settle()
        lock = store / "web%2001" / ".incoming" / (new_id() + ".lock")
        os.utime(lock, (1, 1))
        assert second.size(VM, new_id()).sizes == {"archive.tar.gz": 3}
        refused("backup_in_use", lambda: first.put(VM, new_id(), "archive.tar.gz", 3, b"d") or first.settle())


def test_a_guests_key_adds_incrementals_of_its_own_vm_and_nothing_else(stage: Any, wire: Any, new_id: Any) -> None:
    full = new_id()
    with wire() as mover:
        send_backup(mover, str(stage(full)), VM, full)
    with wire(vms=[VM], kinds=["incremental"], notes=["failed"]) as guest:
        refused("not_granted", lambda: guest.size(VM, full))
        refused("not_granted", lambda: guest.tip("other"))
        refused("not_granted", lambda: guest.size("other", new_id("incremental")))
        for kind in ("copy", "verified", "arrived", "drilled"):
            refused("not_granted", lambda kind=kind: guest.note(VM, {"kind": kind, "backup_id": full, "body": {}}))
    orphan, child = new_id("incremental", "aaaa"), new_id("incremental", "bbbb")
    chain = {"kind": "incremental", "parent": full, "base": full, "consistency": "files"}
    with wire(vms=[VM], kinds=["incremental"]) as guest:
        staged = stage(child, b"i", in_store=True, **chain)
        send_backup(guest, str(staged), VM, child)
        standing = guest.tip(VM, [orphan, full, child])
        assert (standing.tip, standing.base, standing.known) == (child, full, {full: full, child: full})
        assert standing.vm.name == VM
        lost = stage(orphan, b"i", in_store=True, **{**chain, "parent": new_id(suffix="dead")})
        refused("parent_missing", lambda: send_backup(guest, str(lost), VM, orphan))


@pytest.mark.parametrize("days", [-8, 1])
def test_an_id_off_the_stores_clock_is_refused(wire: Any, days: int) -> None:
    off = new_backup_id(datetime.now(timezone.utc) + timedelta(days=days), "full", "7f3a")
    with wire() as link:
        refused("backup_id_off_clock", lambda: link.size(VM, off))
        refused("backup_id_off_clock", lambda: link.put(VM, off, "archive.tar.gz", 0, b"x") or link.settle())


def test_limits_hold(wire: Any, new_id: Any, stage: Any) -> None:
    with wire(in_flight_bytes=1000) as link:
        refused("store_in_flight_exceeded", lambda: link.put(VM, new_id(), "a", 0, bytes(1001)) or link.settle())
    staged = stage(new_id(), b"abc")
    size = sum(file.stat().st_size for file in staged.iterdir())
    with wire(quota_bytes=size) as link:
        send_backup(link, str(staged), VM, new_id())
    other = new_id(suffix="bbbb")
    with wire(quota_bytes=size) as link:
        refused("store_quota_exceeded", lambda: link.put(VM, other, "a", 0, b"x") or link.settle())


def test_a_note_is_kept_with_who_and_when(wire: Any, store: Path) -> None:
    with wire() as link:
        link.note(VM, {"kind": "failed", "backup_id": None, "body": {"message": "no\nsnapshot"}})
        refused("record_invalid", lambda: link.note(VM, {"kind": "failed", "backup_id": None}))
        refused("backup_id_invalid", lambda: link.note(VM, {"kind": "failed", "backup_id": "../x", "body": {}}))
        refused(
            "record_invalid", lambda: link.note(VM, {"kind": "failed", "backup_id": None, "body": {"a": "x" * 40000}})
        )
    (record,) = read_records(VmFolder(str(store), VM).records)
    assert (record.kind, record.key, record.body) == ("failed", "k1", {"message": "no\nsnapshot"})


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n",
        b"[]\n",
        b"{" * 70000 + b"\n",
        b'{"verb":"put","vm":"v","id":"i","file":"f","offset":0,"length":99999999}\n',
        b'{"verb":"put","vm":"v","id":"i","file":"f","offset":0,"length":-1}\n',
        b'{"verb":"put","vm":"v","id":"i","file":"f","offset":0,"length":true}\n',
        b'{"verb":"put","vm":"v","id":"i","file":"f","offset":0,"length":10}\nabc',
    ],
)
def test_a_peer_that_speaks_nonsense_ends_its_own_session_only(receiver_argv: Any, line: bytes, store: Path) -> None:
    done = subprocess.run(receiver_argv(), input=line, capture_output=True, timeout=20, check=False)
    assert done.returncode == 3
    assert b"wire_malformed" in done.stderr
    assert b"Traceback" not in done.stderr
    assert list(store.iterdir()) == []


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"verb": "get", "vm": "v", "id": "20261122T010000Z-full-7f3a"}, "wire_malformed"),
        ({"verb": "tip"}, "wire_malformed"),
        ({"verb": "tip", "vm": "v"}, "wire_malformed"),
        ({"verb": "tip", "vm": "v", "ids": "x"}, "wire_malformed"),
        ({"verb": "tip", "vm": "", "ids": []}, "vm_name_invalid"),
        ({"verb": "size", "vm": "v", "id": "../../etc"}, "backup_id_invalid"),
        ({"verb": "commit", "vm": "v", "id": ".incoming", "sums_sha256": ""}, "backup_id_invalid"),
        ({"verb": "commit", "vm": "v", "id": 7, "sums_sha256": ""}, "wire_malformed"),
    ],
)
def test_a_malformed_request_is_answered_with_its_code(receiver_argv: Any, request_: Any, code: str) -> None:
    done = subprocess.run(
        receiver_argv(), input=json.dumps(request_).encode() + b"\n", capture_output=True, timeout=20, check=True
    )
    assert json.loads(done.stdout.splitlines()[1])["code"] == code


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", ".lock", "a/b", ""])
def test_no_path_from_the_wire_leaves_the_backups_folder(wire: Any, new_id: Any, name: str) -> None:
    with wire() as link:
        refused("file_name_invalid", lambda: link.put(VM, new_id(), name, 0, b"x") or link.settle())


def test_sums_that_name_less_than_there_is_are_refused(wire: Any, new_id: Any, stage: Any) -> None:
    staged = stage(new_id(), b"abc")
    with wire() as link:
        for file in staged.iterdir():
            link.put(VM, new_id(), file.name, 0, file.read_bytes())
        link.put(VM, new_id(), "extra.bin", 0, b"x")
        digest = hashlib.sha256((staged / "SHA256SUMS").read_bytes()).hexdigest()
        refused("backup_foreign_file", lambda: link.commit(VM, new_id(), digest))


def test_a_receiver_that_is_killed_while_it_takes_bytes_is_gone_on_with(
    stage: Any, store: Path, wire: Any, new_id: Any
) -> None:
    staged = stage(new_id())
    link = wire()
    link.put(VM, new_id(), "archive.tar.gz", 0, b"x" * 1_000_000)
    link.settle()
    os.kill(link._peer.pid, signal.SIGKILL)
    with link:
        sent = send_backup(link, str(staged), VM, new_id(), sleep=lambda seconds: None)
    assert (store / "web%2001" / new_id() / "manifest.json").is_file()
    assert sent.resumed_from == 1_000_000
    assert sent.bytes_sent < sum(file.stat().st_size for file in staged.iterdir())


@pytest.mark.parametrize(
    "policy",
    [b"", b"{}", b'{"format":1,"root":"rel","keys":{}}', b'{"format":1,"root":"/r","keys":{"k1":{"vms":"*"}}}',
     b'{"format":1,"root":"/r","keys":{"k1":{"surprise":1}}}', b'{"format":1,"root":"/r","keys":{"k1":{"notes":["verified"]}}}',
     b'{"format":1,"root":"/r","keys":{}}', b'{"format":1,"root":"/r","keys":{"k1":{"quota_bytes":-1}}}'],
)  # fmt: skip
def test_a_policy_that_is_not_understood_stops_the_receiver(receiver_argv: Any, tmp_path: Path, policy: bytes) -> None:
    argv = receiver_argv()
    (tmp_path / "policy.json").write_bytes(policy)
    done = subprocess.run(argv, input=b"", capture_output=True, timeout=20, check=False)
    assert done.returncode == 3
    assert done.stdout == b""
