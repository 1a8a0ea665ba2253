# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import io
import os
import signal
import threading
import time

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.codecs import choose_codec
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.sources import BytesSource, FileSource
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.writer import ArchiveWriter
from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError

from .conftest import MIB, noise


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_is_left():
    threads, files = threading.active_count(), descriptors()
    started = time.monotonic()
    yield
    assert threading.active_count() == threads
    assert descriptors() == files
    assert time.monotonic() - started < 20


class Failing(BytesSource):
    def __init__(self, size, error, at, parallel=True):
        super().__init__(bytes(0))
        self.size, self._error, self._at, self.parallel = size, error, at, parallel

    def data_ranges(self):
        yield 0, self.size

    def read_into(self, offset, view):
        if offset >= self._at:
            raise self._error
        view[:] = b"x" * len(view)


class FullDisk:
    def __init__(self, room):
        self._room = room

    def write(self, data):
        self._room -= len(data)
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")


def writer_to(sink, tmp_path, threads=4):
    return ArchiveWriter(sink, codec=choose_codec(), scratch=str(tmp_path), threads=threads)


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("at", [0, 7 * MIB, 29 * MIB])
def test_a_failing_source_fails_the_archive(tmp_path, parallel, at):
    error = VmbackupError("short_read", "the stream ended")
    writer = writer_to(io.BytesIO(), tmp_path)
    with pytest.raises(VmbackupError) as raised:
        writer.add_source("disk", Failing(30 * MIB, error, at, parallel), mtime=0)
    assert raised.value is error
    with pytest.raises(VmbackupError) as closed:
        writer.add_bytes("a", b"", mtime=0)
    assert closed.value.code == "archive_closed"


def test_a_file_that_shrinks_while_it_is_packed_fails_the_archive(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(noise(MIB) * 12)
    with FileSource(str(path)) as source, writer_to(io.BytesIO(), tmp_path) as writer:
        os.truncate(str(path), 8 * MIB + 5)
        with pytest.raises(VmbackupError) as raised:
            writer.add_source("disk", source, mtime=0)
    assert raised.value.code == "short_read"


@pytest.mark.parametrize("room", [0, 100000, 3 * MIB])
def test_a_full_disk_fails_the_archive_with_a_hint(tmp_path, room):
    with pytest.raises(VmbackupError) as raised, writer_to(FullDisk(room), tmp_path) as writer:
        writer.add_bytes("small", b"x", mtime=0)
        writer.add_source("disk", BytesSource(noise(MIB) * 10), mtime=0)
        writer.close()
    assert raised.value.code == "archive_write_failed"
    assert "No space left" in raised.value.message
    assert raised.value.hint


def test_a_full_disk_is_told_apart_from_a_full_scratch_folder(tmp_path):
    with pytest.raises(VmbackupError) as raised:
        writer_to(io.BytesIO(), tmp_path / "nowhere")
    assert raised.value.code == "scratch_failed"


def test_an_error_of_a_sink_that_is_not_the_systems_passes_through(tmp_path):
    class Broken:
        def write(self, data):
            raise VmbackupError("link_lost", "the store went away")

    with pytest.raises(VmbackupError) as raised, writer_to(Broken(), tmp_path) as writer:
        writer.add_source("disk", BytesSource(noise(MIB)), mtime=0)
        writer.close()
    assert raised.value.code == "link_lost"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), VmbackupError("interrupted", "SIGTERM came")])
def test_a_signal_handler_that_raises_ends_the_archive(tmp_path, error):
    class Endless:
        size, parallel = 1 << 40, True

        def data_ranges(self):
            yield 0, self.size

        def read_into(self, offset, view):
            view[:8] = offset.to_bytes(8, "big")

    class Nowhere:
        def write(self, data):
            pass

    def handler(*_args):
        raise error

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(type(error)) as raised, writer_to(Nowhere(), tmp_path) as writer:
            writer.add_source("disk", Endless(), mtime=0)
        assert raised.value is error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_archive_that_was_not_closed_leaves_nothing_behind(tmp_path):
    with writer_to(io.BytesIO(), tmp_path) as writer:
        writer.add_source("disk", BytesSource(noise(3 * MIB)), mtime=0)
    assert list(tmp_path.iterdir()) == []
    writer.abort()


def test_few_chunks_are_in_flight(tmp_path):
    class Counting(BytesSource):
        read = 0

        def read_into(self, offset, view):
            Counting.read += 1
            super().read_into(offset, view)

    class SlowSink:
        ahead = 0

        def write(self, data):
            time.sleep(0.02)
            written[0] += 1
            SlowSink.ahead = max(SlowSink.ahead, Counting.read - written[0])

    written = [0]
    with writer_to(SlowSink(), tmp_path, threads=2) as writer:
        writer.add_source("disk", Counting(noise(MIB) * 30), mtime=0)
        assert len(writer._pipeline._buffers) <= 4
    assert SlowSink.ahead <= 6
