# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a full says of itself.

Invariant: whatever the backup misses stands in `left_out` with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Dict, Optional

from ..core.store.manifest import FORMAT, Digest, LeftOut, Manifest, Phase, VmIdentity
from ..core.store.names import ARCHIVE
from ..core.utc import utc_text
from ..core.vm.facts import VmFacts
from .frozen import FrozenVm
from .full_order import FullOrder
from .held import HeldSnapshot
from .packing import Packed


@dataclass(frozen=True)
class Reading:
    """One complete reading of a VM. started, ended: the mover's clock."""

    frozen: FrozenVm
    packed: Packed
    started: datetime
    ended: datetime


def manifest_of(facts: VmFacts, order: FullOrder, held: HeldSnapshot, reading: Reading) -> Manifest:
    """Build the manifest of a full that was read in full."""
    summary = reading.packed.summary
    return Manifest(
        format=FORMAT,
        id=order.backup_id,
        kind="full",
        vm=VmIdentity(
            name=order.vm,
            vsphere_name=facts.name,
            instance_uuid=facts.instance_uuid,
            bios_uuid=facts.bios_uuid,
            esx_host=facts.esx_host,
            guest_os=facts.guest_os,
        ),
        parent=None,
        base=None,
        as_of=utc_text(held.snapshot.lease.as_of if held.snapshot else reading.started),
        consistency=_consistency(held),
        snapshot=_snapshot(held),
        transport="datastore",
        codec=summary.codec,
        level=summary.level,
        files=reading.packed.files,
        archive=Digest(ARCHIVE, summary.size, summary.sha256),
        tree_index=None,
        left_out=tuple(LeftOut(what, kind, reason) for what, kind, reason in reading.frozen.left_out),
        phases=(
            Phase(
                name="archive",
                node=order.node,
                start=utc_text(reading.started),
                end=utc_text(reading.ended),
                bytes_in=reading.packed.bytes_read,
                bytes_out=summary.size,
                usage=None,
            ),
        ),
        collection_version=order.collection_version,
    )


def _consistency(held: HeldSnapshot) -> str:
    if held.snapshot is None:
        return "powered_off"
    return "application" if held.snapshot.quiesced else "crash"


def _snapshot(held: HeldSnapshot) -> Optional[Dict[str, Any]]:
    if held.snapshot is None:
        return None
    return {
        "name": held.snapshot.name,
        "created": utc_text(held.snapshot.created),
        "quiesced": held.snapshot.quiesced,
        "open_seconds": round(held.open_seconds, 1),
        "removed": held.removal is not None,
    }
