# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.lineage import Standing
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.manifest import VmIdentity
from ansible_collections.vmbackup.esx.plugins.module_utils.core.tree.parent import Parent, Staged, choose_parent

F1 = "20261122T010000Z-full-0001"
I1 = "20261122T130000Z-incremental-0001"
I2 = "20261123T010000Z-incremental-0002"
F2 = "20261125T010000Z-full-0002"
I3 = "20261125T130000Z-incremental-0003"
VM = VmIdentity("web01", "web01", "u", "b", "esx1", "debian")


def standing(tip: str, base: str, **known: str) -> Standing:
    return Standing(tip, base, VM, {globals()[each]: globals()[of] for each, of in known.items()})


def choose(where: Any, *ids: str, staged: Any = (), oldest: int = 1, **options: bool) -> Parent:
    begun = datetime(2026, 11, oldest, tzinfo=timezone.utc)
    return choose_parent("web01", where, {each: "/i/" + each for each in ids}, staged, oldest=begun, **options)


def staged(id: str, parent: str, base: str = F1) -> Staged:
    return Staged(id, parent, base, "/s/" + id)


def test_an_incremental_stands_on_the_tip_and_a_differential_on_its_full() -> None:
    where = standing(I1, F1, F1="F1", I1="F1")
    assert choose(where, F1, I1) == Parent(I1, F1, "/i/" + I1, "since " + I1, VM)
    assert choose(where, F1, I1, differential=True) == Parent(F1, F1, "/i/" + F1, "since " + F1, VM)


def test_a_guest_that_went_back_in_time_starts_a_branch_from_what_both_have() -> None:
    found = choose(standing(I2, F1, F1="F1", I1="F1"), F1, I1)
    assert (found.id, found.base, found.index) == (I1, F1, "/i/" + I1)
    assert "no index of " + I2 in found.reason


def test_a_full_without_a_baseline_lets_the_older_chain_go_on() -> None:
    found = choose(standing(F2, F2, F1="F1", I2="F1"), F1, I2)
    assert (found.id, found.base) == (I2, F1)


def test_an_index_whose_backup_the_store_does_not_have_is_not_used() -> None:
    found = choose(standing(F1, F1, F1="F1"), F1, I1)
    assert found.id == F1


def test_what_is_staged_is_gone_on_from_and_what_the_chain_left_behind_is_stale() -> None:
    where = standing(F1, F1, F1="F1")
    waiting = (staged(I1, F1), staged(I2, I1))
    assert choose(where, F1, staged=waiting) == Parent(I2, F1, "/s/" + I2, "since {}, which is staged".format(I2), VM)
    assert choose(where, F1, staged=waiting, differential=True).id == F1
    assert choose(where, F1, staged=waiting, oldest=24) == Parent(F1, F1, "/i/" + F1, "since " + F1, VM, (I1, I2))
    later = standing(F2, F2, F1="F1", F2="F2")
    assert choose(later, F1, F2, staged=waiting) == Parent(F2, F2, "/i/" + F2, "since " + F2, VM, (I1, I2))
    other = standing(I2, F1, F1="F1", I2="F1")
    assert choose(other, F1, I2, staged=(staged(I1, F1), staged(I3, F1))).id == I3
    assert choose(other, F1, I2, staged=(staged(I1, F1), staged(I3, F1))).stale == (I1,)


@pytest.mark.parametrize("differential", [False, True])
def test_nothing_is_guessed_where_nothing_serves(differential: bool) -> None:
    for where in (None, standing(F1, F1)):
        with pytest.raises(VmbackupError) as caught:
            choose(where, F1, I1, differential=differential)
        assert caught.value.code == "full_due" and "complete_without_baseline" in caught.value.hint
    found = choose(standing(F1, F1), differential=differential, complete=True)
    assert (found.id, found.base, found.index) == (F1, F1, None)
    with pytest.raises(VmbackupError):
        choose(None, complete=True)
