# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moments as text: in manifests, records and leases; UTC, to the second."""

from __future__ import annotations

from datetime import datetime, timezone

_FORM = "%Y-%m-%dT%H:%M:%SZ"


def utc_text(moment: datetime) -> str:
    """Return an aware moment as ISO 8601 text."""
    return moment.astimezone(timezone.utc).strftime(_FORM)


def utc_moment(text: str) -> datetime:
    """Return the aware moment that utc_text wrote; raises ValueError."""
    return datetime.strptime(text, _FORM).replace(tzinfo=timezone.utc)
