# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.lease import (
    LEASE_TIME,
    ORPHAN_AFTER,
    Lease,
    is_orphan,
    parse_lease,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
ID = "20261122T010000Z-full-7f3a"
LEASE = Lease(ID, "job 17", "control01", NOON, NOON)

times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(timezone.utc)).map(
    lambda moment: moment.replace(microsecond=0)
)
spans = st.timedeltas(timedelta(0), timedelta(days=3))


@given(run=st.text(), controller=st.text(), renewed=st.none() | times, as_of=times)
def test_a_lease_survives_name_and_description(run, controller, renewed, as_of):
    lease = Lease(ID, run, controller, renewed, as_of)
    assert parse_lease(lease.name, lease.description) == lease


@given(name=st.text() | st.just(LEASE.name), description=st.text() | st.just("{}") | st.just("null"))
def test_nothing_that_a_user_types_is_taken_for_ours(name, description):
    assert parse_lease(name, description) is None


def fields(**changes):
    return json.dumps({**json.loads(LEASE.description), **changes})


@pytest.mark.parametrize(
    ("name", "description"),
    [
        (LEASE.name, ""),
        (LEASE.name, "before the upgrade"),
        (LEASE.name, fields(id="20261122T010000Z-full-0000")),
        (LEASE.name, fields(more=1)),
        (LEASE.name, fields(renewed=12)),
        (LEASE.name, fields(as_of=None)),
        (LEASE.name, fields(as_of="yesterday")),
        (LEASE.name, fields(run=None)),
        (LEASE.name + " (copy)", LEASE.description),
        ("vmbackup-", LEASE.description),
        ("vmbackup-before upgrade", LEASE.description),
        (ID, LEASE.description),
    ],
)
def test_a_snapshot_that_only_looks_like_ours_is_the_users(name, description):
    assert parse_lease(name, description) is None


def test_the_description_says_whose_it_is_and_since_when():
    assert json.loads(LEASE.description) == {
        "id": ID,
        "run": "job 17",
        "controller_id": "control01",
        "renewed": "2026-11-22T12:00:00Z",
        "as_of": "2026-11-22T12:00:00Z",
    }


@given(age=spans, created=spans)
def test_a_renewed_lease_is_orphaned_by_its_age_alone(age, created):
    lease = LEASE.renewed_at(NOON)
    assert is_orphan(lease, NOON - created, NOON + age) == (age >= LEASE_TIME)


@given(age=spans, patience=spans)
def test_a_lease_that_was_never_renewed_is_left_for_orphan_after(age, patience):
    lease = Lease(ID, "", "control01", None, NOON)
    assert is_orphan(lease, NOON, NOON + age, orphan_after=patience) == (age >= max(patience, LEASE_TIME))


@given(age=spans, renewed=st.none() | st.just(NOON))
def test_proof_of_death_ends_every_lease(age, renewed):
    lease = Lease(ID, "", "control01", renewed, NOON)
    assert is_orphan(lease, NOON, NOON + age, owner_dead=True)


@given(ahead=spans)
def test_a_clock_that_was_set_back_orphans_nothing(ahead):
    assert not is_orphan(LEASE.renewed_at(NOON + ahead), NOON, NOON)


def test_a_day_is_the_patience_without_renewal():
    assert timedelta(hours=24) == ORPHAN_AFTER
    assert timedelta(minutes=30) == LEASE_TIME
