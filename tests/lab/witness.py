# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An independent witness of what a backup must hold: it hashes a VM's disks at the backup's snapshot, while it stands.

Invariant: it asks the simulator, which reads its own disks; nothing of the collection is involved.
"""

from __future__ import annotations

import threading
from types import TracebackType

from .control import Control, ControlError


class Witness:
    """Watches a VM in a thread. digests: by the name of each of our snapshots, one SHA-256 a disk."""

    def __init__(self, control: Control, vm: str, every: float = 0.05) -> None:
        self._control, self._vm, self._every = control, vm, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"witness-{vm}", daemon=True)
        self.digests: dict[str, list[str]] = {}

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            state = self._control.state(self._vm)
            for snapshot in state["snapshots"]:
                if snapshot["name"].startswith("vmbackup-") and snapshot["name"] not in self.digests:
                    self._hash(snapshot["name"], len(state["disks"]))

    def _hash(self, snapshot: str, disks: int) -> None:
        try:
            self.digests[snapshot] = [self._control.sha256(self._vm, disk, snapshot) for disk in range(disks)]
        except ControlError:  # it went before it was hashed; a test that needs the digest fails for its lack
            return
