# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client of the simulator's control API.

Owns the wire form (POST /verb, JSON both ways) and nothing else; every method is one verb. Standard library only.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from typing import Any, Dict, List, Optional, Sequence, Union


class ControlError(Exception):
    """What the simulator answered instead of a result."""


class Control:
    """Drive a running simulator: machines, what their guests write, faults, users, clocks.

    :param url: the ``control`` address of the simulator's ready line.
    """

    def __init__(self, url: str, timeout: float = 120.0) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, verb: str, body: Any = None) -> Any:
        """Send one verb and return its JSON answer; raise ControlError with the simulator's message."""
        data = json.dumps({} if body is None else body).encode()
        request = urllib.request.Request(
            f"{self.url}/{verb}", data, {"Content-Type": "application/json"}, method="POST"
        )
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ControlError(json.load(error)["message"]) from None

    # Machines

    def create_vm(self, name: str, disks: Optional[Sequence[Dict[str, Any]]] = None, **options: Any) -> Dict[str, Any]:
        """Create a machine and return its state.

        :param disks: dicts of ``size_mb`` or ``image`` (a raw file), ``fill_mb``, ``seed``, ``controller`` (scsi, pvscsi, lsilogic,
            lsisas, sata, nvme, ide), ``bus``, ``unit``, ``datastore``, ``file``, ``thin``, ``mode``, ``rdm`` (physical, virtual), ``sharing``,
            ``bus_sharing`` (virtual, physical), ``encrypted``. Default: one disk of 16 MiB.
        :param options: ``folder`` ("a/b", vCenter only), ``host``, ``datastore``, ``directory``, ``power`` (on, off, suspended), ``memory_mb``,
            ``cpus``, ``guest_id``, ``firmware``, ``instance_uuid``, ``bios_uuid``, ``annotation``, ``tools``, ``sesparse``, ``cbt``,
            ``template``, ``passthrough``, ``vtpm``, ``encryption_key``.
        """
        return self._dict("create_vm", dict(options, name=name, disks=[{}] if disks is None else list(disks)))

    def destroy_vm(self, vm: str) -> None:
        """Remove a machine with its files, whatever its power state."""
        self.call("destroy_vm", {"vm": vm})

    def set_vm(self, vm: str, **changes: Any) -> Dict[str, Any]:
        """Change a machine past the API and return its state.

        :param changes: ``power``, ``tools``, ``template``, ``passthrough``, ``vtpm``, ``encryption_key``, ``consolidation_needed``,
            ``sesparse``, ``deny_quiesced``, ``fail_quiesce``, ``instance_uuid``, ``name``, ``bus_sharing``, ``disk_modes`` ({"0": "independent_persistent"}).
        """
        return self._dict("set_vm", dict(changes, vm=vm))

    def vms(self) -> List[Dict[str, str]]:
        """List the machines: name, moid, path, power."""
        result: List[Dict[str, str]] = self.call("vms")
        return result

    def state(self, vm: str) -> Dict[str, Any]:
        """Return the truth about a machine (name or moid): disks with their chains, snapshots, files, power, stalls."""
        return self._dict("state", {"vm": vm})

    # What is on the disks

    def write(self, vm: str, disk: int, offset: int, data: bytes) -> None:
        """Write as the guest does, to the live disk; whole sectors."""
        self.call("write", {"vm": vm, "disk": disk, "offset": offset, "data": base64.b64encode(data).decode()})

    def write_random(self, vm: str, disk: int, offset: int, length: int, seed: int = 0) -> None:
        """Write reproducible random bytes as the guest does."""
        self.call("write", {"vm": vm, "disk": disk, "offset": offset, "length": length, "seed": seed})

    def read(self, vm: str, disk: int, offset: int, length: int, snapshot: str = "") -> bytes:
        """Read a disk as the guest sees it, or as of a snapshot (name or moid)."""
        body = {"vm": vm, "disk": disk, "offset": offset, "length": length, "snapshot": snapshot}
        return base64.b64decode(self.call("read", body)["data"] or "")

    def sha256(self, vm: str, disk: int = 0, snapshot: str = "") -> str:
        """Hash a whole disk as the guest sees it, or as of a snapshot (name or moid)."""
        return str(self.call("sha256", {"vm": vm, "disk": disk, "snapshot": snapshot})["sha256"])

    def start_writer(self, vm: str, disk: int = 0, rate: float = 1000.0, block: int = 4096, seed: int = 0) -> None:
        """Have the guest write ``block`` random bytes at random places, ``rate`` times a second (0: without pause)."""
        self.call("start_writer", {"vm": vm, "disk": disk, "rate": rate, "block": block, "seed": seed})

    def stop_writer(self, vm: str) -> Dict[str, Any]:
        """End the writer and return writes, seconds, max_stall_ms (the longest that one write waited) and error."""
        return self._dict("stop_writer", {"vm": vm})

    def stall(self, vm: str, reset: bool = False) -> float:
        """Return the longest that one of the guest's writes waited, in milliseconds."""
        return float(self.call("stall", {"vm": vm, "reset": reset})["max_stall_ms"])

    # Snapshots, as another administrator would make them

    def snapshot(self, vm: str, name: str, description: str = "", memory: bool = False, quiesce: bool = False) -> str:
        """Create a snapshot and return its moid."""
        body = {"vm": vm, "name": name, "description": description, "memory": memory, "quiesce": quiesce}
        return str(self.call("snapshot", body)["moid"])

    def remove_snapshot(self, vm: str, name: str, children: bool = False) -> None:
        """Remove a snapshot, by name or moid."""
        self.call("remove_snapshot", {"vm": vm, "name": name, "remove_children": children})

    def revert(self, vm: str, name: str) -> None:
        """Revert the machine to a snapshot, by name or moid; it is powered off afterwards unless memory was saved."""
        self.call("revert", {"vm": vm, "name": name})

    # Faults

    def fault(self, kind: str, **matching: Any) -> int:
        """Inject a fault and return its id.

        :param kind: for methods: soap (answer ``fault``, ``message``), task (the task fails), hang (the task waits until the fault is
            cleared, then runs), consolidation (a removal leaves its merge undone, a consolidation finds a lock), lost (the call is executed,
            the connection cut), drop, http, delay. For transfers (/folder, /nfc): http, delay, drop and short (cut after ``after_bytes``),
            stall (no byte after ``after_bytes`` until cleared), lie (a Content-Length of ``after_bytes``), ignore_range, corrupt (one byte
            turned at ``after_bytes``), rate (``rate_kbs``).
        :param matching: ``method`` (glob; GET, PUT, NFC for transfers), ``vm`` (name or moid), ``path`` (part of "[datastore] path"), ``skip``,
            ``count`` (0: for ever), and ``fault``, ``message``, ``status``, ``delay_ms``, ``after_bytes``, ``rate_kbs``.
        """
        return int(self.call("fault", dict(matching, kind=kind))["id"])

    def clear_faults(self, fault_id: int = 0) -> None:
        """Take one fault back, or all; tasks that hang go on."""
        self.call("clear_faults", {"id": fault_id})

    def faults(self) -> List[Dict[str, Any]]:
        """List the faults with how often each matched and was used."""
        result: List[Dict[str, Any]] = self.call("faults")
        return result

    # The site

    def settings(self, **changes: Union[int, float]) -> Dict[str, Any]:
        """Change and return task_delay_ms, stun_ms, clock_offset_s, max_areas, lease_timeout_s, idle_timeout_s."""
        return self._dict("settings", changes)

    def user(self, name: str, password: str = "", deny: Sequence[str] = ()) -> None:
        """Add or change a user; ``deny`` are globs of methods that answer NoPermission. An empty password stays as it was."""
        self.call("user", {"name": name, "password": password, "deny": list(deny)})

    def expire_sessions(self) -> int:
        """End every session and return how many there were."""
        return int(self.call("expire_sessions")["ended"])

    def calls(self, reset: bool = False) -> Dict[str, int]:
        """Return how often each method was called."""
        result: Dict[str, int] = self.call("calls", {"reset": reset})
        return result

    def perf(self, values: Dict[str, Dict[str, Sequence[int]]]) -> None:
        """Feed performance values: {"vm name, host name or HostSystem": {"cpu.usage.average": [..newest last]}}; one value fills all."""
        self.call(
            "perf", {entity: {name: list(v) for name, v in counters.items()} for entity, counters in values.items()}
        )

    def datastore(self, name: str, **changes: Any) -> Dict[str, Any]:
        """Change ``capacity_mb`` or ``free_mb``, ``sesparse``, ``type`` of a datastore; return name, root, uuid, capacity, free."""
        return self._dict("datastore", dict(changes, name=name))

    def datastores(self) -> List[Dict[str, Any]]:
        """List the datastores."""
        result: List[Dict[str, Any]] = self.call("datastores")
        return result

    def _dict(self, verb: str, body: Any) -> Dict[str, Any]:
        result: Dict[str, Any] = self.call(verb, body)
        return result
