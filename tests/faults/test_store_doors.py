# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be wrong at the store's door, one guest each, through the real playbook in one run."""

from __future__ import annotations

from collections.abc import Callable

from tests.integration.opened_backup import committed
from tests.integration.staged_backup import noise, stage
from tests.lab.fixtures import Played
from tests.lab.keys import make_key
from tests.lab.site import LabSite


def test_each_door_that_does_not_open_has_its_own_words(lab: LabSite, play: Callable[..., Played]) -> None:
    stranger = make_key(lab.folder / "keys" / "stranger", "stranger")
    doors = {
        "door1": ({"vmbackup_store_known_hosts": "/dev/null"}, "host key", "vmbackup_store_known_hosts"),
        "door2": ({"vmbackup_store_host_key": stranger.public_line}, "another host key", "host_key"),
        "door3": ({"vmbackup_store_key_file": str(stranger.private)}, "does not accept", "vmbackup_store_keys"),
        "door4": ({"vmbackup_store_user": "nobody"}, "does not accept", "user of the store"),
        "door5": ({"vmbackup_store_key_file": str(lab.folder / "keys" / "admin")}, "No receiver", "role store"),
        "door6": ({"vmbackup_store_port": 1, "vmbackup_retry_for": 1}, "cannot be reached", "sshd"),
        "door7": ({"vmbackup_store_key_file": "/nonexistent"}, "cannot be used", "key_file"),
    }
    staging = lab.folder / "staging"
    for name, (variables, *_rest) in doors.items():
        stage(staging, name, noise(1000))
        lab.add_guest(name, **variables)
    try:
        done = play("phase2_copy.yml", "--limit", ",".join(doors), "--forks", "4")
    finally:
        for name in doors:
            lab.remove_guest(name)
    assert done.rc == 2 and "0 of 7 good" in done.stdout
    for name, (_variables, cause, option) in doors.items():
        (summary,) = (line for line in done.stdout.splitlines() if line.strip().startswith(f'"{name} '))
        assert "FAILED" in summary and cause in summary and option in summary and lab.store.address in summary
        assert len(committed(staging, name)) == 1 and committed(lab.store_root, name) == []
