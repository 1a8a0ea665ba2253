# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest, and the page for people made of it."""

from __future__ import annotations

import json
from typing import Any, Callable

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.manifest import Manifest, from_json, to_json
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.recover import recover_text

ID = "20261122T010000Z-full-7f3a"
Make = Callable[..., Manifest]


def test_a_manifest_comes_back_equal(manifest_of: Make) -> None:
    manifest = manifest_of(ID, b"abc")
    assert from_json(to_json(manifest)) == manifest


def test_keys_that_this_version_does_not_know_are_let_be(manifest_of: Make) -> None:
    document = json.loads(to_json(manifest_of(ID, b"abc")))
    document["new_thing"] = {"a": 1}
    assert from_json(json.dumps(document).encode()).id == ID


def _changed(path: str, value: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            document = document[parent]
        document[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("format", 2, "manifest_format_unknown"),
        ("kind", "incremental", "manifest_invalid"),
        ("parent", ID, "manifest_invalid"),
        ("vm.name", None, "manifest_invalid"),
        ("archive.size", -1, "manifest_invalid"),
        ("archive.size", True, "manifest_invalid"),
        ("archive.sha256", "xyz", "manifest_invalid"),
        ("archive.name", "../x", "file_name_invalid"),
        ("files", {}, "manifest_invalid"),
        ("id", "../x", "backup_id_invalid"),
        ("consistency", "good", "manifest_invalid"),
    ],
)
def test_a_wrong_field_is_refused(manifest_of: Make, path: str, value: Any, code: str) -> None:
    document = json.loads(to_json(manifest_of(ID, b"abc")))
    _changed(path, value)(document)
    with pytest.raises(VmbackupError) as caught:
        from_json(json.dumps(document).encode())
    assert caught.value.code == code


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"[" * 100000])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(VmbackupError) as caught:
        from_json(data)
    assert caught.value.code == "manifest_invalid"


def test_the_page_for_people_names_the_vm_its_disks_the_steps_and_what_is_missing(manifest_of: Make) -> None:
    text = recover_text(manifest_of(ID, b"abc"))
    for part in ("web 01", ID, "sha256sum -c SHA256SUMS", "tar xzf archive.tar.gz", "vim-cmd solo/registervm",
                 "web 01-flat.vmdk", "Hard disk 2", "excluded by policy", "power cut"):  # fmt: skip
        assert part in text


def test_the_page_of_an_incremental_names_its_chain_and_keeps_attributes(manifest_of: Make) -> None:
    own = "20261122T130000Z-incremental-02c9"
    text = recover_text(manifest_of(own, b"", kind="incremental", parent=ID, base=ID, consistency="files"))
    assert ID in text
    assert "--acls --xattrs" in text
