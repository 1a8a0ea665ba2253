# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever happens to a tree: its first state, with each incremental's deletions and plain tar over it, is the live tree."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, List, Tuple

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.codecs import choose_codec
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.writer import ArchiveWriter
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.pack import pack_changes
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.rules import ScanRules
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.survey import survey
from tests.tree_picture import differences, picture

NAMES = [b"a", b"b", b"c\xff", b"d\n", b"e=%"]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(b"/".join)
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), PATHS, st.binary(max_size=50)),
    st.tuples(st.just("hide"), PATHS, st.just(b"")),
    st.tuples(st.just("folder"), PATHS, st.just(b"")),
    st.tuples(st.just("delete"), PATHS, st.just(b"")),
    st.tuples(st.just("chmod"), PATHS, st.sampled_from([b"600", b"751", b"4755", b"1777"])),
    st.tuples(st.just("date"), PATHS, st.sampled_from([b"-1000000000", b"0", b"4000000000"])),
    st.tuples(st.just("rename"), PATHS, PATHS),
    st.tuples(st.just("link"), PATHS, PATHS),
    st.tuples(st.just("symlink"), PATHS, PATHS),
    st.tuples(st.just("attribute"), PATHS, st.binary(max_size=10)),
    st.tuples(st.just("fifo"), PATHS, st.just(b"")),
)
Rounds = List[List[Tuple[str, bytes, bytes]]]


class Chain:
    """A live tree, its index, and what the backups make of its first state."""

    def __init__(self, folder: Path, ahead: int) -> None:
        """ahead: ns that the scans' clock is ahead; by 10 s nothing counts as touched in the moment of a scan."""
        self.ahead = ahead
        self.folder, self.live, self.target = folder, os.fsencode(folder / "live"), folder / "target"
        os.mkdir(self.live)
        self.restored = os.path.join(os.fsencode(self.target), self.live.lstrip(b"/"))
        os.makedirs(os.path.dirname(self.restored))
        self._number = 0
        self._survey(None)
        subprocess.run([b"cp", b"-a", self.live, self.restored], check=True)

    def change(self, operation: str, path: bytes, argument: bytes) -> None:
        """Do one operation; what cannot be done is passed over."""
        try:
            getattr(self, "_" + operation)(os.path.join(self.live, path), argument)
        except OSError:
            pass

    def backup(self) -> None:
        """Make an incremental, and apply it by plain means."""
        found = self._survey(self._index(self._number - 1))
        archive = str(self.folder / "archive.tar.gz")
        with open(archive, "wb") as sink, ArchiveWriter(
            sink, codec=choose_codec("zlib"), scratch=str(self.folder), threads=1
        ) as writer:
            packed = pack_changes(found.changes(), writer, scratch=str(self.folder))
            writer.close()
        assert packed.missing == packed.unstable == ()
        for change in found.changes():
            if change.kind == "deleted":
                gone = os.path.join(os.fsencode(self.target), change.path)
                shutil.rmtree(gone) if change.is_folder else os.unlink(gone)
        command = [
            "tar",
            "xzf",
            archive,
            "-C",
            str(self.target),
            "--acls",
            "--xattrs",
            "--xattrs-include=*",
            "--numeric-owner",
        ]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)

    def _survey(self, old: Any) -> Any:
        index, self._number = self._index(self._number), self._number + 1
        return survey(
            ScanRules((os.fsdecode(self.live),)),
            old,
            index,
            str(self.folder / "changes"),
            {"vm": "v", "backup_id": ""},
            time.time_ns() + self.ahead,
        )

    def _index(self, number: int) -> str:
        return str(self.folder / "index{}".format(number))

    def _write(self, path: bytes, content: bytes) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fd = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o644
        )  # a pipe would wait for a reader
        os.write(fd, content)
        os.close(fd)

    def _hide(self, path: bytes, _argument: bytes) -> None:
        """Overwrite a file so that size and time stay."""
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode):
            with open(path, "r+b") as file:
                file.write(bytes(status.st_size))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _folder(self, path: bytes, _argument: bytes) -> None:
        os.makedirs(path, exist_ok=True)

    def _delete(self, path: bytes, _argument: bytes) -> None:
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)

    def _chmod(self, path: bytes, mode: bytes) -> None:
        if not os.path.islink(path):
            os.chmod(path, int(mode, 8))

    def _date(self, path: bytes, seconds: bytes) -> None:
        os.utime(path, ns=(0, int(seconds) * 10**9 + 123456789), follow_symlinks=False)

    def _rename(self, path: bytes, other: bytes) -> None:
        os.rename(path, os.path.join(self.live, other))

    def _link(self, path: bytes, other: bytes) -> None:
        os.link(path, os.path.join(self.live, other), follow_symlinks=False)

    def _symlink(self, path: bytes, other: bytes) -> None:
        os.symlink(other, path)

    def _attribute(self, path: bytes, value: bytes) -> None:
        if not os.path.islink(path):
            os.setxattr(path, "user.note", value)

    def _fifo(self, path: bytes, _argument: bytes) -> None:
        os.mkfifo(path)


@example(ahead=10**10, rounds=[[("write", b"a/b", b"1"), ("link", b"a/b", b"b")], [("rename", b"a", b"d\n")]])
@example(
    ahead=10**10, rounds=[[("write", b"a", b"1"), ("link", b"a", b"b")], [("delete", b"a", b""), ("folder", b"a", b"")]]
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    ahead=st.sampled_from([0, 10**10]),
    rounds=st.lists(st.lists(OPERATIONS, min_size=1, max_size=12), min_size=1, max_size=4),
)
def test_the_first_state_and_the_incrementals_in_order_give_the_live_tree(ahead: int, rounds: Rounds) -> None:
    with tempfile.TemporaryDirectory() as folder:
        chain = Chain(Path(folder), ahead)
        for operations in rounds:
            for operation in operations:
                chain.change(*operation)
            chain.backup()
            assert differences(picture(chain.live), picture(chain.restored)) == {}
