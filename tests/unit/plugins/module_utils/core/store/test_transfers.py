# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links that break at any byte: what arrives is exact."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store import stream_sink
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.link import LocalLink, StoreAddress
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.pacing import Patience, TokenBucket
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.sender import send_backup
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.stream_sink import StreamedBackup

VM = "web 01"


def noise(seed: int, size: int) -> bytes:
    """Return bytes that only the seed decides (randbytes needs Python 3.9)."""
    return random.Random(seed).getrandbits(8 * size + 8).to_bytes(size + 1, "big")[1:]


class CutLink(LocalLink):
    """A link that loses its session at chosen calls, before or after what it did, with puts that were never confirmed."""

    def __init__(self, root: str, seed: int, rate: float) -> None:
        super().__init__(root)
        self._random = random.Random(seed)
        self._rate = rate
        self._under_way = 0

    @property
    def unacknowledged(self) -> int:  # type: ignore[override]
        return self._under_way

    def _maybe(self) -> None:
        if self._random.random() < self._rate:
            self._under_way = 0
            raise VmbackupError("store_link_lost", "cut")

    def put(self, vm: str, backup_id: str, file: str, offset: int, data: Any) -> None:
        self._maybe()
        arrived = len(data) if self._random.random() > self._rate else self._random.randrange(len(data) + 1)
        super().put(vm, backup_id, file, offset, data[:arrived])
        if arrived < len(data):
            self._under_way = 0
            raise VmbackupError("store_link_lost", "cut inside a put")
        self._under_way = self._random.randrange(3) * 500
        self._maybe()

    def settle(self) -> None:
        self._maybe()
        self._under_way = 0

    def commit(self, *arguments: Any) -> None:  # type: ignore[override]
        self._maybe()
        super().commit(*arguments)
        self._maybe()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 30), size=st.integers(0, 40_000))
def test_a_stream_over_a_link_that_keeps_breaking_arrives_exact(
    seed: int, size: int, store: Path, manifest_of: Any, new_id: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(stream_sink, "PUT", 1000)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    shutil.rmtree(store)
    content = noise(seed, size)
    link = CutLink(str(store), seed, 0.08)
    with StreamedBackup(link, VM, new_id()) as growing:
        sink = growing.sink("archive.tar.gz")
        sink._patience = Patience(300, sleep=lambda seconds: None)
        for start in range(0, size, 777):
            sink.write(content[start : start + 777])
        sink.close()
        growing.commit(manifest_of(new_id(), content))
    assert (store / "web%2001" / new_id() / "archive.tar.gz").read_bytes() == content


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 30))
def test_a_copy_over_a_link_that_keeps_breaking_arrives_exact(seed: int, stage: Any, store: Path, new_id: Any) -> None:
    shutil.rmtree(store)
    staging = store.parent / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    content = noise(seed, 5_500_000)
    staged = stage(new_id(), content)
    send_backup(CutLink(str(store), seed, 0.2), str(staged), VM, new_id(), sleep=lambda seconds: None)
    assert (store / "web%2001" / new_id() / "archive.tar.gz").read_bytes() == content


def test_a_link_that_does_not_return_in_time_fails_with_its_own_error(stage: Any, store: Path, new_id: Any) -> None:
    now = [0.0]
    staged = stage(new_id())
    with pytest.raises(VmbackupError) as caught:
        send_backup(
            CutLink(str(store), 1, 1.0), str(staged), VM, new_id(), retry_for=300,
            clock=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
        )  # fmt: skip
    assert caught.value.code == "store_link_lost"
    assert 300 <= now[0] < 330
    assert staged.is_dir()


def test_a_store_that_lost_confirmed_bytes_ends_the_stream(store: Path, new_id: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(stream_sink, "PUT", 1000)
    link = LocalLink(str(store))
    sink = StreamedBackup(link, VM, new_id()).sink("archive.tar.gz")
    sink.write(bytes(5000))
    os.truncate(store / "web%2001" / ".incoming" / new_id() / "archive.tar.gz", 1500)
    real, link.put = link.put, lambda *a: (none for none in ()).throw(VmbackupError("store_link_lost", "cut"))  # type: ignore
    sink._patience = Patience(300, sleep=lambda seconds: setattr(link, "put", real))
    with pytest.raises(VmbackupError) as caught:
        sink.write(bytes(1000))
    assert caught.value.code == "stream_broken"


def test_a_receiver_that_dies_again_and_again_costs_nothing_but_time(
    stage: Any, store: Path, wire: Any, new_id: Any
) -> None:
    content = noise(5, 40_000_000)
    staged = stage(new_id(), content)
    link, over = wire(), threading.Event()

    def kill_often() -> None:
        for _turn in range(4):
            if over.wait(0.3):
                return
            peer = link._peer
            if peer is not None:
                os.kill(peer.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_often)
    killer.start()
    try:
        threading.Timer(3, over.set).start()
        with link:
            send_backup(link, str(staged), VM, new_id(), sleep=lambda seconds: time.sleep(0.01))
    finally:
        over.set()
        killer.join()
    assert (store / "web%2001" / new_id() / "archive.tar.gz").read_bytes() == content


def test_the_rate_limit_holds_over_time() -> None:
    now = [0.0]
    bucket = TokenBucket(1000, lambda: now[0], lambda seconds: now.__setitem__(0, now[0] + seconds))
    for _turn in range(100):
        bucket.take(100)
    assert 9.5 <= now[0] <= 10.5


@pytest.mark.parametrize("wrong", [{}, {"host": "h", "path": "/p"}, {"host": "-oProxyCommand=x"}])
def test_an_address_is_a_host_or_a_path(wrong: Any) -> None:
    with pytest.raises(VmbackupError) as caught:
        StoreAddress(**wrong)
    assert caught.value.code == "store_address_invalid"


class HollowLink(LocalLink):
    """A link that comes back each time, takes bytes and loses its session before it confirms one."""

    unacknowledged = 0

    def put(self, *arguments: Any) -> None:
        self.unacknowledged += len(arguments[-1])

    def settle(self) -> None:
        if self.unacknowledged:
            self.unacknowledged = 0
            raise VmbackupError("store_link_lost", "cut")

    def reconnect(self) -> None:
        self.unacknowledged = 0


def test_a_link_that_keeps_coming_back_for_nothing_ends(store: Path, stage: Any, new_id: Any) -> None:
    now = [0.0]
    time_passes = {"clock": lambda: now[0], "sleep": lambda seconds: now.__setitem__(0, now[0] + seconds)}
    sink = stream_sink.StreamSink(HollowLink(str(store)), VM, new_id(), "archive.tar.gz", retry_for=60, **time_passes)
    with pytest.raises(VmbackupError) as caught:
        sink.write(bytes(40 << 20))
        sink.close()
    assert caught.value.code == "store_link_lost" and now[0] < 70
    with pytest.raises(VmbackupError) as caught:
        send_backup(HollowLink(str(store)), str(stage(new_id())), VM, new_id(), retry_for=60, **time_passes)
    assert caught.value.code == "store_link_lost" and now[0] < 140


def test_a_break_after_a_long_healthy_time_has_all_of_its_patience(store: Path, new_id: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(stream_sink, "PUT", 1000)
    now = [0.0]
    link = LocalLink(str(store))
    sink = stream_sink.StreamSink(
        link, VM, new_id(), "archive.tar.gz", retry_for=60,
        clock=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
    )  # fmt: skip
    real = link.put
    for _turn in range(3):
        breaks = iter([True, False, False])

        def put(*arguments: Any, breaks: Any = breaks) -> None:
            if next(breaks):
                raise VmbackupError("store_link_lost", "cut")
            real(*arguments)

        link.put = put  # type: ignore[method-assign]
        sink.write(bytes(1000))
        now[0] += 3600
    assert (store / "web%2001" / ".incoming" / new_id() / "archive.tar.gz").stat().st_size == 3000
