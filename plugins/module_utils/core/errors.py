# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error type of this collection.

Invariant: whatever reaches a user says what failed, why, and which option helps; docs/errors.md lists every code.
"""

from __future__ import annotations


class VmbackupError(Exception):
    """An expected failure.

    code: snake_case literal, listed in docs/errors.md.
    message: names the object and the cause; never holds a secret.
    hint: names the option or the step that helps.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return "{} ({})".format(self.message, self.hint) if self.hint else self.message
