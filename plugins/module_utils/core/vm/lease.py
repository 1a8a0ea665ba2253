# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease of a snapshot: its name and description say whose it is and until when it is held.

Invariant: a snapshot is ours only when its name and the JSON of its description name the same backup id; anything else
belongs to the user, whatever it is called.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Optional

from ..utc import utc_moment, utc_text

PREFIX = "vmbackup-"
LEASE_TIME = timedelta(minutes=30)
ORPHAN_AFTER = timedelta(hours=24)

_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[a-z]+-[0-9a-z]+")
_KEYS = {"id", "run", "controller_id", "renewed", "as_of"}


@dataclass(frozen=True)
class Lease:
    """Who holds a snapshot.

    id: backup id. run: the run's name, for people. controller_id: the configured, stable name of the controller.
    renewed: server's clock at the last renewal, None as long as no renewal has succeeded.
    as_of: the controller's clock just before the snapshot was taken.
    """

    id: str
    run: str
    controller_id: str
    renewed: Optional[datetime]
    as_of: datetime

    @property
    def name(self) -> str:
        """The snapshot's name."""
        return PREFIX + self.id

    @property
    def description(self) -> str:
        """The snapshot's description."""
        return json.dumps(
            {
                "id": self.id,
                "run": self.run,
                "controller_id": self.controller_id,
                "renewed": None if self.renewed is None else utc_text(self.renewed),
                "as_of": utc_text(self.as_of),
            },
            sort_keys=True,
        )

    def renewed_at(self, esx_now: datetime) -> Lease:
        """Return the lease as renewed at a time of the server's clock."""
        return replace(self, renewed=esx_now.astimezone(timezone.utc).replace(microsecond=0))


def parse_lease(name: str, description: str) -> Optional[Lease]:
    """Return the lease that a snapshot's name and description hold, or None for a snapshot that is not ours."""
    if not name.startswith(PREFIX) or not _ID.fullmatch(name[len(PREFIX) :]):
        return None
    try:
        fields = json.loads(description)
    except ValueError:
        return None
    if not isinstance(fields, dict) or set(fields) != _KEYS or fields["id"] != name[len(PREFIX) :]:
        return None
    texts = (fields["run"], fields["controller_id"], fields["as_of"])
    if not all(isinstance(text, str) for text in texts) or not isinstance(fields["renewed"], (str, type(None))):
        return None
    try:
        renewed = None if fields["renewed"] is None else utc_moment(fields["renewed"])
        return Lease(fields["id"], fields["run"], fields["controller_id"], renewed, utc_moment(fields["as_of"]))
    except ValueError:
        return None


def is_orphan(
    lease: Lease,
    created: datetime,
    esx_now: datetime,
    *,
    owner_dead: bool = False,
    orphan_after: timedelta = ORPHAN_AFTER,
) -> bool:
    """Tell whether nobody holds the snapshot any more.

    created: when the snapshot was taken; esx_now: now; both by the server's clock.
    owner_dead: a lock of the lease's controller proves that its owner is dead.
    orphan_after: how long a snapshot is left alone whose lease was never renewed, for the user may lack that right.
    """
    if owner_dead:
        return True
    if lease.renewed is None:
        return esx_now - created >= max(orphan_after, LEASE_TIME)
    return esx_now - lease.renewed >= LEASE_TIME
