# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTP proxy that knows CONNECT and nothing else, and counts what goes through it."""

from __future__ import annotations

import select
import socket
import socketserver
import threading
from typing import Any, List

IDLE_LIMIT = 60.0


class ConnectProxy:
    """Runs from enter to exit. targets: host:port of each tunnel that was asked for. allow: whether tunnels are made."""

    def __init__(self, allow: bool = True) -> None:
        self.targets: List[str] = []
        self.allow = allow
        self.open: List[socket.socket] = []
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _handler(self), bind_and_activate=True)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.host, self.port = self._server.server_address[0], self._server.server_address[1]

    def __enter__(self) -> ConnectProxy:
        self._thread.start()
        return self

    def cut(self) -> None:
        """End every tunnel, as a server or a firewall ends connections that nobody uses."""
        for end in self.open:
            end.shutdown(socket.SHUT_RDWR)

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(proxy: ConnectProxy) -> Any:
    class Handler(socketserver.StreamRequestHandler):
        rbufsize = 0  # what follows the headers belongs to the tunnel

        def handle(self) -> None:
            method, target = self.rfile.readline().decode().split()[:2]
            while self.rfile.readline().strip():
                pass
            proxy.targets.append(target)
            if method != "CONNECT" or not proxy.allow:
                self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            host, port = target.rsplit(":", 1)
            with socket.create_connection((host, int(port)), 10) as there:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                proxy.open.append(self.connection)
                _carry(self.connection, there)
                proxy.open.remove(self.connection)

    return Handler


def _carry(here: socket.socket, there: socket.socket) -> None:
    """Pass bytes on, both ways, until one side ends."""
    while True:
        ready = select.select([here, there], [], [], IDLE_LIMIT)[0]
        for end in ready:
            data = end.recv(1 << 16)
            if not data:
                return
            (there if end is here else here).sendall(data)
        if not ready:
            return
