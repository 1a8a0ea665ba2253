# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the simulator's tests need of a vSphere client: pyVmomi and plain HTTPS, with a session of its own."""

from __future__ import annotations

import hashlib
import http.client
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from pyVim.connect import Disconnect, SmartConnect
from pyVim.task import WaitForTask
from pyVmomi import vim

from tests.lab.simulator import Simulator


class Client:
    """One session."""

    def __init__(self, sim: Simulator, user: str = "root", password: str = "") -> None:
        self.sim = sim
        self.si = SmartConnect(
            host=sim.host, port=sim.port, user=user, pwd=password or sim.password, disableSslCertValidation=True
        )
        self.content = self.si.content

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        Disconnect(self.si)

    @property
    def cookie(self) -> str:
        return str(self.si._stub.cookie).split(";", maxsplit=1)[0]

    def vm(self, name: str) -> Any:
        """Return the machine of that name."""
        view = self.content.viewManager.CreateContainerView(self.content.rootFolder, [vim.VirtualMachine], True)
        try:
            (machine,) = [v for v in view.view if v.name == name]
        finally:
            view.Destroy()
        return machine

    def request(
        self, method: str, host_path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Send one HTTPS request and read its answer."""
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(self.sim.host, self.sim.port, context=context, timeout=20)
        try:
            connection.request(method, host_path, body=body, headers={"Cookie": self.cookie, **(headers or {})})
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def folder(
        self,
        path: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        store: str = "datastore1",
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Ask /folder for "folder/file" on a datastore."""
        query = urlencode({"dcPath": self.sim.datacenter, "dsName": store})
        return self.request(method, f"/folder/{quote(path)}?{query}", headers, body)

    def snapshot(self, machine: Any, name: str, *, memory: bool = False, quiesce: bool = False) -> Any:
        """Create a snapshot and return it."""
        task = machine.CreateSnapshot_Task(name=name, description="", memory=memory, quiesce=quiesce)
        WaitForTask(task)
        return task.info.result


def disks(config: Any) -> list[Any]:
    """Return the virtual disks of a machine's or a snapshot's configuration."""
    return [d for d in config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)]


def tree(nodes: Any) -> Iterator[Any]:
    """Walk a snapshot tree."""
    for node in nodes:
        yield node
        yield from tree(node.childSnapshotList)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
