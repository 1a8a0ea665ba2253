# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One simulated ESX host or vCenter of a lab: its process, its certificate and its control API."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from .certs import Certificate
from .control import Control
from .daemon import Daemon
from .simulator import build
from .sshd import free_port

ADDRESS = "127.0.0.1"


class EsxServer:
    """A simulator under the lab's care.

    model: "esx" or "vpx". datastores: name and capacity in MiB.
    """

    def __init__(self, folder: Path, name: str, model: str, cert: Certificate, *, attached: bool) -> None:
        self.name, self.model, self.cert = name, model, cert
        self.folder = folder / name
        self.user, self.password = "root", "Lab-Pass-4711!"
        self.hostname, self.port, self.control_port = ADDRESS, free_port(), free_port()
        self._daemon = Daemon(f"esxsim-{name}", folder, attached=attached)

    @property
    def control_url(self) -> str:
        return f"http://{ADDRESS}:{self.control_port}"

    @property
    def control(self) -> Control:
        return Control(self.control_url)

    def start(self, datastores: Mapping[str, int]) -> None:
        """Build the simulator if its sources changed, start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        argv = [str(build()), "-model", self.model, "-state", str(self.folder)]
        argv += ["-listen", f"{ADDRESS}:{self.port}", "-control", f"{ADDRESS}:{self.control_port}"]
        argv += ["-cert", str(self.cert.cert), "-key", str(self.cert.key)]
        argv += ["-user", self.user, "-password", self.password]
        for name, megabytes in datastores.items():
            argv += ["-datastore", f"{name}={megabytes}"]
        self._daemon.start(argv)
        self._daemon.wait_until(lambda: _answers(self.port) and _answers(self.control_port))

    def stop(self) -> None:
        self._daemon.stop()


def _answers(port: int) -> bool:
    try:
        socket.create_connection((ADDRESS, port), timeout=1).close()
    except OSError:
        return False
    return True
