# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Patterns mean what git says that they mean: git is asked."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.patterns import Patterns
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.rules import ScanRules

FOLDERS = [b"a", b"a/b", b"a/b/a", b"b", b"b/d.d", b"ab"]
FILES = [folder + b"/" + name for folder in FOLDERS for name in (b"c", b"c.d", b"ba", b"]", b"-x")] + [
    b"c",
    b"abc",
    b"*",
]
PART = st.sampled_from(
    [
        "a",
        "b",
        "c",
        "ab",
        "*",
        "**",
        "?",
        "a*",
        "*.d",
        "c.?",
        "[ab]",
        "[!a]",
        "[^a]*",
        "[a-c]",
        "[]]",
        r"\*",
        "***",
        "[!]]",
        "*b*",
    ]
)
PATTERN = st.builds(
    lambda back, start, parts, end: back + start + "/".join(parts) + end,
    st.sampled_from(["", "", "", "!"]),
    st.sampled_from(["", "/"]),
    st.lists(PART, min_size=1, max_size=3),
    st.sampled_from(["", "", "/"]),
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    place = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", place], check=True)
    for folder in FOLDERS:
        os.makedirs(os.fsencode(place) + b"/" + folder, exist_ok=True)
    for name in FILES:
        with open(os.fsencode(place) + b"/" + name, "wb"):
            pass
    return place


def left_out(rules):
    """Walk as a scan does: what lies below a folder that is left out is not asked about."""
    found = set()
    for path in sorted(FOLDERS + FILES):
        parents = [path[:end] for end, byte in enumerate(path) if byte == 0x2F]
        if any(parent in found for parent in parents) or rules.matches(path, path in FOLDERS):
            found.add(path)
    return found


@settings(max_examples=200, deadline=None)
@given(patterns=st.lists(PATTERN, min_size=1, max_size=4))
def test_git_leaves_out_the_same(repository, patterns):
    (repository / ".git" / "info" / "exclude").write_text("\n".join(patterns) + "\n")
    asked = subprocess.run(
        ["git", "-C", repository, "check-ignore", "--no-index", "-z", "--stdin"],
        input=b"\0".join(sorted(FOLDERS + FILES)),
        capture_output=True,
        check=False,
    )
    rules = Patterns(patterns)
    assert left_out(rules) == set(filter(None, asked.stdout.split(b"\0")))
    for path in left_out(rules):
        folder, _slash, _name = path.rpartition(b"/")
        names = b"\0".join(
            other[len(folder) :].lstrip(b"/") for other in FOLDERS + FILES if other.rpartition(b"/")[0] == folder
        )
        if rules.matches(path, path in FOLDERS):
            assert rules.may_match(folder, names)
    everything = ScanRules(("/",), tuple(patterns))
    assert {path for path in FOLDERS + FILES if everything.leaves_out(path, path in FOLDERS)} == left_out(rules)


@pytest.mark.parametrize(
    "pattern", ["", "/", "!", "//", "a//b", "a/../b", "./a", "[a", "a\\", "[z-a]", "[[:alpha:]]", "a\0b"]
)
def test_a_pattern_that_cannot_be_understood_is_refused(pattern):
    with pytest.raises(VmbackupError) as refused:
        ScanRules(("/",), (pattern,))
    assert refused.value.code == "scan_pattern_invalid"
    assert repr(pattern) in refused.value.message


@pytest.mark.parametrize(
    "asked",
    [
        {"paths": ()},
        {"paths": ("srv",)},
        {"paths": ("/srv", "/srv/www")},
        {"paths": ("/", "/srv")},
        {"paths": ("/srv", "/srv/")},
        {"paths": ("/srv/../etc",)},
        {"paths": ("/srv//www",)},
        {"paths": ("/srv",), "always_out": ("state",)},
        {"paths": ("/srv",), "exclude_if_present": ("a/b",)},
        {"paths": ("/srv",), "exclude_if_present": ("",)},
    ],
)
def test_rules_that_make_no_sense_are_refused(asked):
    with pytest.raises(VmbackupError) as refused:
        ScanRules(**asked)
    assert refused.value.code == "scan_path_invalid"
    assert refused.value.hint


def test_roots_that_only_look_alike_are_taken():
    assert ScanRules(("/srv-b", "/srv", "/srv.c/d/")).roots == (b"srv", b"srv-b", b"srv.c/d")
