# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTPS server that gives a VM's files: `/folder` of the ESX host or vCenter.

Invariant: one thread uses it; connections that are free are used again, and closed in the end.
"""

from __future__ import annotations

import http.client
import os
import ssl
from typing import Any, List, Tuple
from urllib.parse import quote, urlencode

from ..core.vm.facts import split_path
from .pyvmomi import vim
from .session import Session


class FolderServer:
    """Where files are asked for: host, datacenter, certificate policy, session."""

    def __init__(self, session: Session, vm_obj: Any, timeout: float) -> None:
        self._session = session
        self._vm_obj = vm_obj
        self._timeout = timeout
        self._datacenter = _datacenter_path(session, vm_obj)
        self._context = _tls(session.connection.validate_certs)
        self._free: List[http.client.HTTPSConnection] = []

    def take(self) -> Tuple[http.client.HTTPSConnection, bool]:
        """Return a connection, and whether it was used before: the server may have closed it meanwhile."""
        return (self._free.pop(), True) if self._free else (self.connect(), False)

    def give_back(self, connection: http.client.HTTPSConnection) -> None:
        """Take a connection that has no answer under way."""
        self._free.append(connection)

    def close(self) -> None:
        """Close what is free; harmless when it is closed."""
        while self._free:
            self._free.pop().close()

    def connect(self) -> http.client.HTTPSConnection:
        """Return a connection that is opened by its first request, through the proxy where one is set."""
        to = self._session.connection
        if not to.proxy_host:
            return http.client.HTTPSConnection(to.hostname, to.port, timeout=self._timeout, context=self._context)
        through = http.client.HTTPSConnection(
            to.proxy_host, to.proxy_port, timeout=self._timeout, context=self._context
        )
        through.set_tunnel(to.hostname, to.port)
        return through

    def url(self, path: str) -> str:
        """Return the path and query of `[datastore] folder/name`."""
        datastore, name = split_path(path)
        query = urlencode({"dcPath": self._datacenter, "dsName": datastore}, quote_via=quote)
        return "/folder/{}?{}".format(quote(name, safe="/"), query)

    def cookie(self) -> str:
        """Return the session's cookie."""
        return self._session.cookie()

    def log_in_again(self) -> None:
        """Have the session renewed, if it has ended."""
        self._session.ask("renewing the session for a download", lambda: self._vm_obj.name, True)


def _tls(validate: bool) -> ssl.SSLContext:
    """Return the certificate policy: the system's CAs and those of REQUESTS_CA_BUNDLE, or none."""
    if not validate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the default one would load every CA, for nothing
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    context = ssl.create_default_context()
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if bundle:
        context.load_verify_locations(**{"capath" if os.path.isdir(bundle) else "cafile": bundle})
    return context


def _datacenter_path(session: Session, vm_obj: Any) -> str:
    """Return the inventory path of the VM's datacenter, escaped as the inventory has it."""
    names: List[str] = []
    node = session.ask("reading the folder of a VM", lambda: vm_obj.parent or vm_obj.parentVApp, True)
    while node is not None:
        parent = session.ask("reading the folder of a VM", lambda node=node: node.parent, True)
        if isinstance(node, vim.Datacenter) or names:
            if parent is None:  # the root folder has no place in a path
                break
            names.append(session.ask("reading a folder's name", lambda node=node: node.name, True))
        node = parent
    return "/".join(reversed(names))
