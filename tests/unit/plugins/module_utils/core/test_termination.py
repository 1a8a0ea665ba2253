# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A signal ends the work once, past every handler of ordinary errors, and leaves the way out alone."""

from __future__ import annotations

import os
import signal

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.termination import (
    SIGNALS,
    Terminated,
    ignore_signals,
    raise_on_signals,
)


@pytest.fixture(autouse=True)
def _handlers_as_before():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_raised_past_handlers_of_errors_and_later_ones_are_ignored(number):
    raise_on_signals()
    with pytest.raises(Terminated) as ended:
        try:
            os.kill(os.getpid(), number)
        except Exception as error:  # noqa: BLE001
            pytest.fail("borne as {}".format(error))
    for each in SIGNALS:
        os.kill(os.getpid(), each)
    told = ended.value.told()
    assert told.code == "interrupted"
    assert signal.Signals(number).name in told.message


def test_signals_that_are_ignored_end_nothing():
    raise_on_signals()
    ignore_signals()
    for each in SIGNALS:
        os.kill(os.getpid(), each)
