# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guests that write once the run's own snapshot stands on their VM, and remember every write.

What an earlier run left on a VM does not count: a write before the new snapshot would belong into the backup.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tests.lab.control import ControlError

if TYPE_CHECKING:
    from .ground import Machine

_LEASE = {"id", "run", "controller_id", "renewed", "as_of"}
_SECTOR = 512
_STRIDE = 257  # spreads the writes over the disk


def is_ours(snapshot: dict[str, Any]) -> bool:
    """Tell whether a snapshot is ours: its description is a lease's JSON, and names the backup that its name does."""
    try:
        said = json.loads(snapshot["description"])
    except ValueError:
        return False
    return isinstance(said, dict) and set(said) == _LEASE and snapshot["name"] == "vmbackup-{}".format(said["id"])


class Guests:
    """Threads beside a run. descriptions: of all snapshots of ours that were seen."""

    def __init__(self, machines: Sequence[Machine], meanwhile: Callable[[], None] | None) -> None:
        self._machines = machines
        self._writes: dict[str, dict[int, bytes]] = {machine.guest: {} for machine in machines}
        self._left = {each["moid"] for machine in machines for each in machine.state()["snapshots"]}
        self._stop = threading.Event()
        self._works = [self._write, *([meanwhile] if meanwhile is not None else [])]
        self._pool = ThreadPoolExecutor(len(self._works))
        self._running: list[Future[None]] = []
        self.descriptions: set[str] = set()

    def __enter__(self) -> Guests:
        self._running = [self._pool.submit(work) for work in self._works]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown()

    def expected(self, machine: Machine) -> list[bytes]:
        """Return what a VM's live disks must hold now."""
        first = bytearray(machine.before[0])
        for offset, data in self._writes[machine.guest].items():
            first[offset : offset + _SECTOR] = data
        return [bytes(first), *machine.before[1:]]

    def require_no_failure(self) -> None:
        """Raise what ended a thread early."""
        for each in self._running:
            each.result()

    def _write(self) -> None:
        number = 0
        while not self._stop.wait(0.1):
            for machine in self._machines:
                number += 1
                self._write_one(machine, number)

    def _write_one(self, machine: Machine, number: int) -> None:
        state = machine.state()
        ours = [each for each in state["snapshots"] if is_ours(each)]
        self.descriptions.update(each["description"] for each in ours)
        if all(each["moid"] in self._left for each in ours) or state["power"] != "poweredOn":
            return
        offset = number * _STRIDE * _SECTOR % len(machine.before[0])
        data = number.to_bytes(4, "big") * (_SECTOR // 4)
        try:
            machine.control.write(machine.moid, 0, offset, data)
        except ControlError:  # it was powered off, or its datastore is full: the guest knows that nothing was written
            return
        self._writes[machine.guest][offset] = data
