# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An archive opens with tools that know nothing of us."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile

import pytest

TESTERS = [
    ["gzip", "-t"],
    ["gzip", "-dc"],
    ["pigz", "-t"],
    ["zstd", "-q", "-t"],
    ["7z", "t"],
    ["igzip", "-t"],
    ["busybox", "gunzip", "-t"],
]
EXTRACTORS = [
    ["tar", "xzf", "{archive}"],
    ["bsdtar", "-xzf", "{archive}"],
    ["busybox", "tar", "xzf", "{archive}"],
]


@pytest.fixture(scope="module")
def path(archive, tmp_path_factory):
    file = tmp_path_factory.mktemp("archive") / "archive.tar.gz"
    file.write_bytes(archive)
    return file


def need(tool):
    if shutil.which(tool) is None:
        pytest.skip("{} is not installed here".format(tool))


@pytest.mark.parametrize("command", TESTERS, ids=" ".join)
def test_tools_accept_the_archive(path, command):
    need(command[0])
    done = subprocess.run([*command, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("command", EXTRACTORS, ids=lambda command: command[0])
def test_tools_extract_every_file(path, contents, command, tmp_path):
    need(command[0])
    line = [part.format(archive=path) for part in command]
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(line, cwd=str(tmp_path), env=environment, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    for name, content in contents.items():
        assert (tmp_path / name).read_bytes() == content


def test_python_extracts_every_file(path, contents):
    with tarfile.open(str(path), "r:gz") as tar:
        for name, content in contents.items():
            assert tar.extractfile(name).read() == content


def test_gzip_and_our_count_of_the_stream_agree(path, gunzip):
    need("gzip")
    out = subprocess.run(["gzip", "-dc", str(path)], stdout=subprocess.PIPE, check=True).stdout
    assert hashlib.sha256(out).digest() == hashlib.sha256(gunzip(path.read_bytes())).digest()
