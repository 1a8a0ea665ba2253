# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a signal does to a module that holds something: it becomes an error, once, so that the way out runs whole.

Ansible runs neither rescue nor always after a signal, so a module that was handed a snapshot releases it itself.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Optional

from .errors import VmbackupError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def raise_on_signals() -> None:
    """Turn the first SIGTERM, SIGINT or SIGHUP into VmbackupError("interrupted"); later ones are ignored."""
    for number in SIGNALS:
        signal.signal(number, _raise)


def _raise(number: int, frame: Optional[FrameType]) -> None:
    for each in SIGNALS:  # the way out must not be cut short by a second one
        signal.signal(each, signal.SIG_IGN)
    raise VmbackupError(
        "interrupted",
        "Stopped by {} before the work was done.".format(signal.Signals(number).name),
        "Nothing partial is visible; run the backup again.",
    )
