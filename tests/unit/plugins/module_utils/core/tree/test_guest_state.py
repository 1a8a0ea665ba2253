# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.guest_state import GuestState

FULL = "20261122T010000Z-full-000{}"
INCREMENTAL = "20261122T0{}0000Z-incremental-0001"
NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)


@pytest.fixture
def state(tmp_path: Path) -> GuestState:
    return GuestState(str(tmp_path / "state"), "web 01")


def made(state: GuestState, text: str) -> str:
    path = Path(state.scratch()) / "tree.idx"
    path.write_text(text)
    return str(path)


def test_an_index_waits_until_it_is_promoted(state: GuestState) -> None:
    with state.locked():
        state.keep_pending(FULL.format(1), made(state, "one"))
        assert list(state.pending()) == list(state.indexes()) == [FULL.format(1)]
        state.promote(FULL.format(1), state.pending()[FULL.format(1)])
        assert state.pending() == {}
        assert Path(state.indexes()[FULL.format(1)]).read_text() == "one"


def test_a_staged_index_is_copied_and_old_ones_go(state: GuestState, tmp_path: Path) -> None:
    staged = tmp_path / "tree.idx"
    staged.write_text("staged")
    with state.locked():
        for number in range(1, 8):
            state.promote(INCREMENTAL.format(number), str(staged))
        for number in range(1, 5):
            state.promote(FULL.format(number), str(staged))
    assert staged.read_text() == "staged"
    kept = [FULL.format(3), FULL.format(4)] + [INCREMENTAL.format(number) for number in range(4, 8)]
    assert sorted(state.indexes()) == sorted(kept)


def test_pending_indexes_go_when_their_backup_can_no_longer_come(state: GuestState) -> None:
    old = "20261101T010000Z-full-0001"
    for backup_id in (old, FULL.format(1), INCREMENTAL.format(1)):
        state.keep_pending(backup_id, made(state, "x"))
    state.drop_pending(NOW)
    assert list(state.pending()) == [FULL.format(1)]


def test_two_runs_never_overlap_and_a_dead_ones_scratch_goes(state: GuestState, tmp_path: Path) -> None:
    holder = (
        "import sys; sys.path[:0] = {!r}; from {} import GuestState\n"
        "with GuestState({!r}, 'web 01').locked(): print('held', flush=True); sys.stdin.read()"
    ).format(sys.path, GuestState.__module__, str(tmp_path / "state"))
    with subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(VmbackupError) as caught, state.locked():
            pass
        assert caught.value.code == "guest_busy" and str(other.pid) in caught.value.message
        left = made(state, "left")
        other.kill()
    with state.locked():
        assert not Path(left).exists()


def test_a_folder_that_cannot_be_used_is_named_with_its_option(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(VmbackupError) as caught, GuestState(str(tmp_path / "state"), "web01").locked():
        pass
    assert caught.value.code == "guest_state_unusable" and "state_dir" in caught.value.hint
