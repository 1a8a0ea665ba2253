# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real files packed and unpacked by real tools: everything comes back, and whatever happens meanwhile is told."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import tarfile

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.codecs import choose_codec
from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive.writer import ArchiveWriter
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.attributes import acl_text
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.pack import pack_changes

from .packing import Found, Packer, compare

ROOT = os.geteuid() == 0
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, 0xFFFFFFFF), (2, 4, 12345), (4, 4, 0xFFFFFFFF), (16, 6, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF))
)


def test_everything_that_a_file_can_be_comes_back_by_plain_tar(packer: Packer) -> None:
    tree = packer.tree
    (tree / "folder" / "deep").mkdir(parents=True)
    (tree / "empty").touch()
    (tree / "text").write_text("text")
    (tree / "exact").write_bytes(b"x" * 512)
    (tree / "big").write_bytes(os.urandom(9 << 20))
    (tree / os.fsdecode(b"odd-\xff-\n-\xc3\xa4")).write_text("odd")
    long = tree / ("a" * 200) / ("b" * 200)
    long.mkdir(parents=True)
    (long / ("c" * 250)).write_text("deep")
    (tree / "symlink").symlink_to("text")
    (tree / "dangling").symlink_to("x" * 300)
    os.mkfifo(tree / "fifo")
    for name, seconds in (("old", -1_500_000_000), ("far", 5_000_000_000), ("exactly", 0)):
        (tree / name).touch()
        os.utime(tree / name, ns=(0, seconds * 1_000_000_000 + 123_456_789))
    os.utime(tree / "symlink", ns=(0, 1_234_567_890_123_456_789), follow_symlinks=False)
    os.setxattr(tree / "text", "user.colour", b"blue\0=%\n")
    os.setxattr(tree / "folder", "user.of=a%folder", b"x")
    if ROOT:
        os.setxattr(tree / "text", "trusted.note", b"t")
        os.setxattr(tree / "text", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
        os.setxattr(tree / "folder", "system.posix_acl_access", ACL)
        os.setxattr(tree / "folder", "system.posix_acl_default", ACL)
        os.mknod(tree / "device", 0o020640, os.makedev(259, 70000))
        os.chown(tree / "exact", 3_000_000_000, 2_097_152)
        os.chown(tree / "symlink", 1, 2, follow_symlinks=False)
        (tree / "exact").chmod(0o6751)
    (tree / "folder").chmod(0o1777)
    os.utime(tree / "folder", ns=(0, 1_000_000_001))
    packed = packer.pack()
    assert packed.missing == packed.unstable == ()
    compare(packer)


def test_hard_links_stay_one_file_and_their_content_is_packed_once(packer: Packer) -> None:
    (packer.tree / "z").mkdir()
    (packer.tree / "first").write_bytes(os.urandom(1 << 20))
    for name in ("second", "z/third"):
        os.link(packer.tree / "first", packer.tree / name)
    packed = packer.pack()
    assert packed.bytes_read == 1 << 20
    out = packer.unpack()
    assert len({os.lstat(out / name).st_ino for name in ("first", "second", "z/third")}) == 1
    compare(packer)


@pytest.mark.parametrize("ends_in_a_hole", [True, False])
def test_holes_stay_holes_for_every_reader_that_knows_them(packer: Packer, ends_in_a_hole: bool) -> None:
    with (packer.tree / "sparse").open("wb") as file:
        file.write(b"head")
        for megabyte in (5, 100, 101, 200):
            file.seek((megabyte << 20) + 77)
            file.write(os.urandom(5000))
        file.truncate((300 << 20) + 5 if ends_in_a_hole else file.tell())
    packed = packer.pack()
    assert packed.bytes_read < 1 << 20 and packer.archive.stat().st_size < 1 << 20
    out = packer.unpack()
    assert (out / "sparse").stat().st_blocks * 512 < 1 << 20
    subprocess.run(["cmp", str(packer.tree / "sparse"), str(out / "sparse")], check=True)
    assert not (out / "GNUSparseFile.0").exists()
    with tarfile.open(str(packer.archive)) as archive:
        member = archive.getmember("sparse")
        assert member.size == (packer.tree / "sparse").stat().st_size
    if shutil.which("bsdtar"):
        other = packer.out.parent / "other"
        other.mkdir()
        subprocess.run(["bsdtar", "xf", str(packer.archive), "-C", str(other)], check=True)
        subprocess.run(["cmp", str(packer.tree / "sparse"), str(other / "sparse")], check=True)


def test_a_socket_and_what_is_gone_are_named_and_the_rest_is_packed(packer: Packer) -> None:
    (packer.tree / "kept").write_text("kept")
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(packer.tree, os.O_RDONLY)
        listener.bind("/proc/self/fd/{}/socket".format(folder))
        os.close(folder)
    ghosts = [b"ghost", b"gone/a", b"gone/b/c", b"kept/below"]
    with packer.archive.open("wb") as sink, ArchiveWriter(
        sink, codec=choose_codec("zlib"), scratch=str(packer.scratch)
    ) as writer:
        changes = [Found(path, "created", not path) for path in (b"", *sorted([b"kept", b"socket", *ghosts]))] + [
            Found(b"kept", "deleted")
        ]
        packed = pack_changes(changes, writer, scratch=str(packer.scratch), root=str(packer.tree))
        writer.close()
    missing = {note.path: note.kind for note in packed.missing}
    assert missing == {b"ghost": "vanished", b"gone": "vanished", b"kept": "vanished", b"socket": "socket"}
    assert (packer.unpack() / "kept").read_text() == "kept"


@pytest.mark.skipif(ROOT, reason="root reads everything")
def test_what_may_not_be_read_is_named(packer: Packer) -> None:
    (packer.tree / "secret").write_text("s")
    (packer.tree / "secret").chmod(0)
    assert [(note.path, note.kind) for note in packer.pack().missing] == [(b"secret", "unreadable")]


def test_nothing_is_read_through_a_symlink(packer: Packer) -> None:
    (packer.tree / "real").mkdir()
    (packer.tree / "real" / "file").write_text("elsewhere")
    (packer.tree / "link").symlink_to("real")
    with packer.archive.open("wb") as sink, ArchiveWriter(
        sink, codec=choose_codec("zlib"), scratch=str(packer.scratch)
    ) as writer:
        packed = pack_changes([Found(b"link/file")], writer, scratch=str(packer.scratch), root=str(packer.tree))
        writer.close()
    assert packed.files == 0 and [note.kind for note in packed.missing] == ["vanished"]


def test_the_name_of_the_archives_own_index_is_not_taken(packer: Packer) -> None:
    for folder in (".vmbackup", "deeper/.vmbackup"):
        (packer.tree / folder).mkdir(parents=True)
        (packer.tree / folder / "members.idx").write_text("a user's")
    assert [(note.path, note.kind) for note in packer.pack().missing] == [(b".vmbackup/members.idx", "reserved")]
    compare(packer, ".vmbackup/members.idx")


def test_an_acl_is_written_with_numbers() -> None:
    assert acl_text(ACL) == b"user::rw-,user:12345:r--,group::r--,mask::rw-,other::---"
    for unknown in (b"", b"abc", struct.pack("<I", 3), ACL + b"x", ACL[:4] + struct.pack("<HHI", 64, 0, 0)):
        assert acl_text(unknown) is None
