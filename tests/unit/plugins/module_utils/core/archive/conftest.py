# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives to test with: small, with holes, odd sizes, and content that does and does not compress."""

from __future__ import annotations

import importlib
import importlib.util
import io
import random
import zlib

import pytest

# The collection is imported inside the fixtures: pytest-ansible makes it importable only after this file was read.
MIB = 1 << 20
ARCHIVE = "ansible_collections.vmbackup.esx.plugins.module_utils.core.archive."
CODECS = ["isal", "zlib"] if importlib.util.find_spec("isal") else ["zlib"]


def noise(size, seed=1):
    return random.Random(seed).getrandbits(8 * size).to_bytes(size, "little") if size else b""


def text(size):
    return (b"the quick brown fox jumps over the lazy dog\n" * (size // 44 + 1))[:size]


@pytest.fixture(scope="session", params=CODECS)
def codec(request):
    return importlib.import_module(ARCHIVE + "codecs").choose_codec(request.param)


@pytest.fixture(scope="session")
def disk():
    """3.7 MiB of content around 3 MiB of zeros, with an odd end."""
    return noise(MIB) + text(MIB + MIB // 2) + bytes(3 * MIB) + text(MIB + 333)


@pytest.fixture(scope="session")
def pack(tmp_path_factory):
    """Return a function that packs {name: bytes or source} and returns (archive's bytes, summary, files)."""
    scratch = str(tmp_path_factory.mktemp("scratch"))

    def run(contents, codec, threads=2):
        sink = io.BytesIO()
        with importlib.import_module(ARCHIVE + "writer").ArchiveWriter(
            sink, codec=codec, scratch=scratch, threads=threads
        ) as writer:
            files = [_add(writer, name, content) for name, content in contents.items()]
            summary = writer.close()
        return sink.getvalue(), summary, files

    return run


def _add(writer, name, content):
    if isinstance(content, bytes) and len(content) < 100000:
        return writer.add_bytes(name, content, mtime=1700000000)
    make_source = importlib.import_module(ARCHIVE + "sources").BytesSource
    source = make_source(content) if isinstance(content, bytes) else content
    return writer.add_source(name, source, mtime=1700000000)


@pytest.fixture(scope="session")
def contents(disk):
    return {
        "vm.vmx": b'displayName = "vm"\n',
        "vm-flat.vmdk": disk,
        "deep/" * 30 + "na\u00efve \u65e5\u672c.log": text(5000),
        "empty": b"",
        "last.nvram": noise(8684),
    }


@pytest.fixture(scope="session")
def archive(pack, contents, codec):
    return pack(contents, codec)[0]


@pytest.fixture(scope="session")
def small_archive(pack):
    """A few 4 KiB members: what bits are flipped in."""
    contents = {"a.vmx": text(300), "b-flat.vmdk": bytes(3 * MIB) + text(200000), "c": noise(700)}
    return pack(contents, importlib.import_module(ARCHIVE + "codecs").choose_codec())[0], contents


@pytest.fixture(scope="session")
def gunzip():
    """Return a function that inflates all members, by Python's zlib alone."""

    def run(data):
        out = []
        while data:
            stream = zlib.decompressobj(31)
            out.append(stream.decompress(data))
            data = stream.unused_data
        return b"".join(out)

    return run
