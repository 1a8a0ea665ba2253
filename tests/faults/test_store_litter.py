# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pack that was killed left in the staging folder is gone after the VM's next pack; a living one's stays."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.folder import StoreTree
from tests.integration.opened_backup import committed, incoming
from tests.integration.staged_backup import fresh_id
from tests.lab.fixtures import LabVm, Played
from tests.lab.site import LabSite


def test_the_next_pack_sweeps_the_staging_folder(
    lab: LabSite, fresh_vm: Callable[..., LabVm], play: Callable[..., Played]
) -> None:
    vm, staging = fresh_vm(power="on"), lab.folder / "staging"
    dead, living = fresh_id(), fresh_id()
    with StoreTree(str(staging)).incoming(vm.name, living):
        left = staging / vm.name / ".incoming" / dead
        left.mkdir()
        (left / "archive.tar.gz").write_bytes(b"half")
        done = play("phase1_archive.yml", "--limit", vm.name)
        assert incoming(staging, vm.name) == [living, f"{living}.lock"]
    assert done.rc == 0, done.output
    assert " MiB packed into " in done.stdout
    assert len(committed(staging, vm.name)) == 1 and incoming(staging, vm.name) == []
