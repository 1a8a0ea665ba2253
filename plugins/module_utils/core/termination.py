# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a signal does to a module: it is raised, once, so that the way out runs whole and says why.

Ansible runs neither rescue nor always after a signal, so a module that was handed a snapshot releases it itself.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Optional

from .errors import VmbackupError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Terminated(BaseException):
    """A signal asked for the end. No VmbackupError: what bears or repeats those must not swallow it."""

    def told(self) -> VmbackupError:
        """Return the error that a module reports for it."""
        return VmbackupError(
            "interrupted",
            "Stopped by {} before the work was done.".format(self),
            "Nothing partial is visible; run it again, which repairs what is left.",
        )


def raise_on_signals() -> None:
    """Turn the first SIGTERM, SIGINT or SIGHUP into Terminated; later ones are ignored."""
    for number in SIGNALS:
        signal.signal(number, _raise)


def ignore_signals() -> None:
    """Ignore SIGTERM, SIGINT and SIGHUP from now on: what is done on the way out must not be cut short."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _raise(number: int, frame: Optional[FrameType]) -> None:
    ignore_signals()
    raise Terminated(signal.Signals(number).name)
