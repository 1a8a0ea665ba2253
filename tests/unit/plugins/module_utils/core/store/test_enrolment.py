# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.enrolment import (
    StoreDoor,
    enrol,
    guest_key_name,
    with_guest,
    with_inventory_keys,
    without_guest,
)
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.grants import load_policy

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ"
MOVER = {"vms": ["*"], "kinds": ["full"], "login": {"public_key": KEY + " mover", "from": ""}}


@pytest.fixture
def door(tmp_path: Path) -> StoreDoor:
    return StoreDoor("/srv", "/usr/bin/python3", "/lib/r.pyz", str(tmp_path / "policy.json"), str(tmp_path / "keys"))


def enrol_guest(door: StoreDoor, vm: str) -> None:
    enrol(door, lambda document: with_guest(document, vm, {"public_key": KEY, "from": ""}, {"quota_bytes": 7}))


def refused(act: Any) -> str:
    with pytest.raises(VmbackupError) as caught:
        act()
    return str(caught.value)


def test_a_guest_adds_incrementals_of_itself_and_the_inventory_never_removes_it(door: StoreDoor) -> None:
    enrol_guest(door, "web01")
    enrol(door, lambda document: with_inventory_keys(document, {"mover": MOVER}))
    root, grant = load_policy(door.policy_file, "guest.web01")
    assert (root, grant.vms, grant.kinds, grant.notes) == ("/srv", {"web01"}, {"incremental"}, frozenset())
    assert (grant.adopt, grant.quota_bytes) == (False, 7)
    lines = Path(door.authorized_keys).read_text().splitlines()[1:]
    assert len(lines) == 2 and all(line.startswith('restrict,command="/usr/bin/python3 -I ') for line in lines)
    enrol(door, lambda document: without_guest(with_inventory_keys(document, {}), "web01"))
    assert json.loads(Path(door.policy_file).read_bytes())["keys"] == {}


def test_guests_that_are_enrolled_at_once_lose_no_key(door: StoreDoor) -> None:
    names = ["vm{}".format(number) for number in range(24)]
    processes = [multiprocessing.get_context("fork").Process(target=enrol_guest, args=(door, name)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert set(json.loads(Path(door.policy_file).read_bytes())["keys"]) == {guest_key_name(name) for name in names}
    assert len(Path(door.authorized_keys).read_text().splitlines()) == 25


@pytest.mark.parametrize("vm", ["web 01", 'a"b', "x" * 100, "säge", "a/b", "../c"])
def test_any_name_of_a_vm_makes_a_plain_name_of_a_key(door: StoreDoor, vm: str) -> None:
    enrol_guest(door, vm)
    assert load_policy(door.policy_file, guest_key_name(vm))[1].vms == {vm}


def test_two_vms_never_share_a_key_name() -> None:
    names = ["web01", "web 01", "web-01", "WEB01", guest_key_name("web 01")[6:], "x" * 50, "x" * 51]
    assert len({guest_key_name(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"public_key": KEY + '"\nssh-rsa AAAA'}, "one public key"),
        ({"public_key": "command=x " + KEY}, "one public key"),
        ({"public_key": ""}, "one public key"),
        ({"public_key": KEY, "from": '1",command="sh'}, "from of key"),
    ],
)
def test_what_would_break_out_of_its_line_is_refused(door: StoreDoor, entry: Any, complaint: str) -> None:
    change = {"k": {**MOVER, "login": entry}}
    assert complaint in refused(lambda: enrol(door, lambda document: with_inventory_keys(document, change)))
    assert not Path(door.authorized_keys).exists()


def test_the_inventory_cannot_take_a_guests_name_and_paths_must_be_plain(door: StoreDoor) -> None:
    assert "guest_setup" in refused(lambda: enrol(door, lambda d: with_inventory_keys(d, {"guest.web01": MOVER})))
    assert "plain" in refused(lambda: StoreDoor("/srv", "/usr/bin/python 3", "/r", "/p", "/k"))
