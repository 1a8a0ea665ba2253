# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that change while they are packed: what is unpacked is whole, or named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree import live_content, pack

from .packing import Packer


class Restless:
    """Changes a file each time that it is opened or has been read so often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None], at: int = 2) -> None:
        self._reads, self._act, self._at = 0, act, at
        for module, name in ((os, "pread"), (os, "preadv")):
            monkeypatch.setattr(module, name, self._wrapped(getattr(module, name)))

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self._reads += 1
            if self._reads == self._at:
                self._act(self._reads)
            return real(*arguments)

        return call


def test_a_small_file_that_changes_once_is_read_again_and_is_whole(packer: Packer, monkeypatch: Any) -> None:
    file = packer.tree / "log"
    file.write_text("before")
    Restless(monkeypatch, lambda _n: file.write_text("after, and longer"))
    packed = packer.pack()
    assert packed.unstable == packed.missing == ()
    assert (packer.unpack() / "log").read_text() == "after, and longer"


def test_a_small_file_that_never_rests_is_packed_as_read_and_named(packer: Packer, monkeypatch: Any) -> None:
    file = packer.tree / "log"
    file.write_text("x")
    real = os.pread

    def grow(*arguments: Any) -> bytes:
        data = real(*arguments)
        with file.open("a") as log:
            log.write("y")
        return data

    monkeypatch.setattr(os, "pread", grow)
    packed = packer.pack()
    monkeypatch.undo()
    assert [(note.path, note.kind) for note in packed.unstable] == [(b"log", "unstable")]
    content = (packer.unpack() / "log").read_text()
    assert content.strip("y") == "x" and file.read_text().startswith(content)


def test_a_large_file_that_shrinks_ends_as_what_was_left_and_is_never_filled_up(
    packer: Packer, monkeypatch: Any
) -> None:
    file = packer.tree / "log"
    content = os.urandom(20 << 20)
    file.write_bytes(content)
    Restless(monkeypatch, lambda _n: os.truncate(file, 10_000_001), at=3)
    packed = packer.pack()
    assert [note.path for note in packed.unstable] == [b"log"]
    assert (packer.unpack() / "log").read_bytes() == content[:10_000_001]
    assert list(packer.scratch.iterdir()) == []


def test_a_private_copy_keeps_holes_and_names_a_disk_that_fails(tmp_path: Path, monkeypatch: Any) -> None:
    with (tmp_path / "file").open("w+b") as file, (tmp_path / "copy").open("w+b") as copy:
        file.write(b"head")
        file.truncate(50 << 20)
        file.seek(40 << 20)
        file.write(b"tail")
        file.flush()
        assert live_content.copy_to(file.fileno(), copy.fileno(), "file") == 50 << 20
        assert os.fstat(copy.fileno()).st_blocks * 512 <= 4 << 20
        assert (tmp_path / "copy").read_bytes() == (tmp_path / "file").read_bytes()

        def fail(*_arguments: Any) -> bytes:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(live_content.os, "pread", fail)
        with pytest.raises(VmbackupError) as caught:
            live_content.copy_to(file.fileno(), copy.fileno(), "file")
    assert caught.value.code == "source_unreadable"


def test_a_large_file_that_is_rewritten_is_read_once_more(packer: Packer, monkeypatch: Any) -> None:
    file = packer.tree / "table"
    file.write_bytes(b"a" * (9 << 20))

    def rewrite(_number: int) -> None:
        with file.open("r+b") as table:
            table.write(b"b" * (9 << 20))

    Restless(monkeypatch, rewrite, at=3)
    packed = packer.pack()
    assert packed.unstable == ()
    assert (packer.unpack() / "table").read_bytes() == b"b" * (9 << 20)


def test_a_very_large_file_that_changes_is_not_read_twice_but_named(packer: Packer, monkeypatch: Any) -> None:
    monkeypatch.setattr(pack, "MOST_READ_AGAIN", 1 << 20)
    file = packer.tree / "table"
    file.write_bytes(b"a" * (9 << 20))
    Restless(monkeypatch, lambda _n: os.utime(file), at=3)
    packed = packer.pack()
    assert [note.path for note in packed.unstable] == [b"table"] and packed.files == 2


def test_a_disk_that_fails_midway_ends_the_backup_by_name(packer: Packer, monkeypatch: Any) -> None:
    (packer.tree / "table").write_bytes(b"a" * (9 << 20))

    def fail(*_arguments: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(live_content.os, "preadv", fail)
    with pytest.raises(VmbackupError) as caught:
        packer.pack()
    assert (
        caught.value.code == "source_unreadable" and "table" in caught.value.message and "exclude" in caught.value.hint
    )


def test_a_hard_linked_file_that_is_rewritten_between_its_names_is_saved_as_it_was_under_each(
    packer: Packer, monkeypatch: Any
) -> None:
    (packer.tree / "a").write_text("first")
    os.link(packer.tree / "a", packer.tree / "c")
    (packer.tree / "b").write_text("between")
    Restless(monkeypatch, lambda _n: (packer.tree / "a").write_text("second, longer"), at=3)  # while b is read
    packed = packer.pack()
    assert [note.path for note in packed.unstable] == [b"c"]
    out = packer.unpack()
    assert ((out / "a").read_text(), (out / "c").read_text()) == ("first", "second, longer")
