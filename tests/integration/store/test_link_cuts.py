# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The link to a real store is cut in the middle of a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.link import as_record
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.sender import send_backup
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.ssh_link import SshLink
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.stream_sink import StreamedBackup
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.wire_link import WINDOW
from tests.integration.opened_backup import committed, incoming
from tests.integration.staged_backup import (
    arrived,
    fresh_id,
    lab_store,
    manifest_of,
    noise,
    size_of,
    stage,
    wait_for,
)
from tests.lab.fixtures import Played
from tests.lab.site import LabSite

MiB = 1 << 20


@pytest.fixture
def whole_link(lab: LabSite) -> Iterator[None]:
    """Leave the link whole, whatever a test does to it."""
    yield
    lab.store.restore_link()


@pytest.mark.usefixtures("whole_link")
def test_a_copy_goes_on_where_the_link_was_cut(lab: LabSite, tmp_path: Path) -> None:
    staged = stage(tmp_path, "cut01", noise(32 * MiB))
    with SshLink(lab_store(lab, timeout=2)) as link, ThreadPoolExecutor() as pool:
        copy = pool.submit(send_backup, link, str(staged), "cut01", staged.name, rate_limit=16 * MiB, retry_for=60)
        wait_for(lambda: arrived(lab.store_root, "cut01", staged.name) > 12 * MiB)
        session = link._peer
        lab.store.cut_link()
        wait_for(lambda: link._peer is not session)
        there = arrived(lab.store_root, "cut01", staged.name)
        lab.store.restore_link()
        sent = copy.result(timeout=60)
    assert (committed(lab.store_root, "cut01")[0] / "archive.tar.gz").read_bytes() == noise(32 * MiB)
    assert size_of(staged) <= sent.bytes_sent <= size_of(staged) + WINDOW + MiB
    assert there >= 12 * MiB
    assert incoming(lab.store_root, "cut01") == []


@pytest.mark.usefixtures("whole_link")
def test_a_copy_whose_link_stays_cut_fails_and_the_next_run_resumes(lab: LabSite, play: Callable[..., Played]) -> None:
    staging = lab.folder / "staging"
    staged = stage(staging, "cut02", noise(16 * MiB))
    size = size_of(staged)
    lab.add_guest("cut02", vmbackup_retry_for=2, vmbackup_store_timeout=2)
    try:
        with ThreadPoolExecutor() as pool:
            run = pool.submit(play, "phase2_copy.yml", "--limit", "cut02", "-e", f"vmbackup_rate_limit={4 * MiB}")
            wait_for(lambda: arrived(lab.store_root, "cut02", staged.name) > 4 * MiB, 60)
            lab.store.cut_link()
            failed = run.result(timeout=120)
        assert failed.rc == 2
        assert f"{lab.store.address}:{lab.store.port}" in failed.output and "for 2 s (retry_for)" in failed.output
        assert committed(staging, "cut02") == [staged] and committed(lab.store_root, "cut02") == []
        lab.store.restore_link()
        lab.add_guest("cut02")
        repeated = play("phase2_copy.yml", "--limit", "cut02", "-v")
        assert repeated.rc == 0, repeated.output
    finally:
        lab.remove_guest("cut02")
    (sent,) = (int(word) for word in repeated.stdout.split('"bytes_sent": ')[1].split(",")[:1])
    assert 0 < sent < size - 4 * MiB
    assert (committed(lab.store_root, "cut02")[0] / "archive.tar.gz").read_bytes() == noise(16 * MiB)
    assert committed(staging, "cut02") == []


@pytest.mark.usefixtures("whole_link")
def test_a_stream_goes_on_without_gap_or_repeat(lab: LabSite) -> None:
    content, backup_id = noise(24 * MiB), fresh_id()
    with SshLink(lab_store(lab, timeout=2)) as link:
        with StreamedBackup(link, "cut03", backup_id, retry_for=60, rate_limit=24 * MiB) as growing:
            sink = growing.sink("archive.tar.gz")
            for start in range(0, len(content), 300_000):
                if start == 9_000_000:
                    lab.store.cut_link()
                    ThreadPoolExecutor().submit(
                        lambda: (wait_for(lambda: link._peer is None), lab.store.restore_link())
                    )
                sink.write(content[start : start + 300_000])
            sink.close()
            growing.commit(manifest_of("cut03", backup_id, content))
        link.note("cut03", as_record("copy", backup_id, {}))
    assert (committed(lab.store_root, "cut03")[0] / "archive.tar.gz").read_bytes() == content
