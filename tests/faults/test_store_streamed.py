# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The link to the store is cut while a VM is packed into it: its snapshot does not outlive the run either way."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.integration.opened_backup import committed, disk_digests, incoming, unpack
from tests.integration.staged_backup import arrived, wait_for
from tests.lab.fixtures import LabVm, Played
from tests.lab.site import LabSite
from tests.lab.witness import Witness

from .guests import is_ours

STREAMED = {"vmbackup_way": "streamed", "vmbackup_rate_limit": 6 << 20, "vmbackup_store_timeout": 2}


def run_with_a_cut(lab: LabSite, play: Callable[..., Played], vm: LabVm, restored_after: float | None) -> Played:
    """Run a full backup whose link is cut in the middle; restored_after: seconds, None for never."""

    def ids() -> list[str]:
        return [each for each in incoming(lab.store_root, vm.name) if not each.endswith(".lock")]

    with ThreadPoolExecutor() as pool:
        run = pool.submit(play, "full_backup.yml", "--limit", vm.name)
        try:
            wait_for(lambda: any(arrived(lab.store_root, vm.name, each) > 4 << 20 for each in ids()), 90)
            lab.store.cut_link()
            if restored_after is not None:
                there = arrived(lab.store_root, vm.name, ids()[0])
                pool.submit(wait_for, run.done, restored_after).exception()
                assert arrived(lab.store_root, vm.name, ids()[0]) <= there + (1 << 20)
                assert any(is_ours(each) for each in vm.state()["snapshots"])
                lab.store.restore_link()
            return run.result(timeout=180)
        finally:
            lab.store.restore_link()


def ours(vm: LabVm) -> list[Any]:
    return [each for each in vm.state()["snapshots"] if is_ours(each)]


def test_a_stream_whose_link_returns_is_whole(
    lab: LabSite, fresh_vm: Callable[..., LabVm], play: Callable[..., Played], tmp_path: Path
) -> None:
    variables = {**STREAMED, "vmbackup_retry_for": 90}
    vm = fresh_vm(power="on", disks=[{"size_mb": 24, "fill_mb": 20}], variables=variables)
    with Witness(vm.control, vm.name) as witness:
        done = run_with_a_cut(lab, play, vm, restored_after=4)
    assert done.rc == 0, done.output
    (backup,) = committed(lab.store_root, vm.name)
    assert disk_digests(unpack(backup, tmp_path / "out")) == sorted(witness.digests["vmbackup-" + backup.name])
    assert ours(vm) == []


def test_a_stream_whose_link_stays_cut_fails_and_leaves_no_snapshot(
    lab: LabSite, fresh_vm: Callable[..., LabVm], play: Callable[..., Played]
) -> None:
    variables = {**STREAMED, "vmbackup_retry_for": 2}
    vm = fresh_vm(power="on", disks=[{"size_mb": 24, "fill_mb": 20}], variables=variables)
    failed = run_with_a_cut(lab, play, vm, restored_after=None)
    assert failed.rc == 2
    assert lab.store.address in failed.output and "for 2 s (retry_for)" in failed.output
    assert ours(vm) == [] and committed(lab.store_root, vm.name) == []
