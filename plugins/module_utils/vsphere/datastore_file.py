# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One file of a datastore, read over HTTPS `/folder`.

Invariants: what the server says of lengths must agree with what is expected; a download that breaks is taken up where
it stopped, a bounded number of times; nothing waits for ever.
"""

from __future__ import annotations

import http.client
import os
import re
import ssl
import time
from functools import partial
from types import TracebackType
from typing import Any, List, Optional, Tuple, Type
from urllib.parse import quote, urlencode

from ..core.errors import VmbackupError
from ..core.vm.facts import split_path
from .faults import certificate_error
from .pyvmomi import vim
from .session import Session

_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
_PROGRESS = 8 << 20  # bytes after which earlier breaks are forgotten
_SKIP = 1 << 20  # bytes that are rather read and thrown away than asked for anew
_BUSY = (502, 503, 504)
_RANGE = re.compile(r"^bytes ([0-9]+)-([0-9]+)/([0-9]+)$")


class FolderServer:
    """Where files are asked for: host, datacenter, certificate policy, session."""

    def __init__(self, session: Session, vm_obj: Any, timeout: float) -> None:
        self._session = session
        self._vm_obj = vm_obj
        self._timeout = timeout
        self._datacenter = _datacenter_path(session, vm_obj)
        self._context = _tls(session.connection.validate_certs)

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


class DatastoreFile:
    """A file of known size, read by one thread. It satisfies core.vm.vmfs_sparse.ExtentReader."""

    def __init__(self, server: FolderServer, path: str, size: Optional[int], streaming: bool) -> None:
        """size: bytes that are expected; None: what the server says. streaming: ask once for all that follows."""
        self.name = path
        self._server = server
        self._streaming = streaming
        self._connection: Optional[http.client.HTTPSConnection] = None
        self._answer: Optional[http.client.HTTPResponse] = None
        self._at = 0  # where the answer's next byte lies in the file
        self._end = 0  # where the answer ends
        self._breaks: List[str] = []
        self._since_break = 0
        self._known = size
        if size is None:
            self._retried(lambda: self._ask(0, None))
        assert self._known is not None
        self.size: int = self._known

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes at `offset`.

        Raises download_refused, download_length, download_short, esx_unreachable, esx_certificate.
        """
        if offset + len(view) > self.size:
            raise self._short("it has {} bytes, byte {} was wanted".format(self.size, offset + len(view)))
        done = 0
        while done < len(view):
            done += self._retried(partial(self._some, offset + done, view[done:]))

    def close(self) -> None:
        """Close the connection; harmless when it is closed."""
        self._answer = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> DatastoreFile:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _retried(self, step: Any) -> int:
        """Run one step, again after each break of the connection, with pauses, as long as there is progress."""
        while True:
            try:
                count = int(step())
                self._since_break += count
                if self._since_break >= _PROGRESS:
                    self._breaks = []
                return count
            except ssl.SSLCertVerificationError as error:
                raise certificate_error("reading " + self.name, error) from error
            except (OSError, http.client.HTTPException) as error:
                self.close()
                self._since_break = 0
                self._breaks.append("{}: {}".format(type(error).__name__, error))
                if len(self._breaks) > len(_PAUSES):
                    raise self._short(
                        "the download broke {} times, last by {}".format(len(self._breaks), self._breaks[-1])
                    ) from error
                time.sleep(_PAUSES[len(self._breaks) - 1])

    def _some(self, offset: int, view: memoryview) -> int:
        """Read some of what is wanted; return how much."""
        self._position(offset, len(view))
        assert self._answer is not None
        count = self._answer.readinto(view[: min(len(view), self._end - self._at)])
        if not count:
            raise http.client.IncompleteRead(b"", self._end - self._at)
        self._at += count
        if self._at == self._end:
            self._answer.read()  # lets the connection be used again
            self._answer = None
        return count

    def _position(self, offset: int, length: int) -> None:
        if self._answer is not None and self._at <= offset < self._end and offset - self._at <= _SKIP:
            self._skip(offset - self._at)
            return
        if self._answer is not None:
            self.close()
        self._ask(offset, self.size if self._streaming else offset + length)

    def _skip(self, count: int) -> None:
        assert self._answer is not None
        while count:
            data = self._answer.read(min(count, 1 << 16))
            if not data:
                raise http.client.IncompleteRead(b"", count)
            count -= len(data)
            self._at += len(data)

    def _ask(self, start: int, end: Optional[int]) -> int:
        """Ask for the bytes from `start` to `end` (None: all there are)."""
        answer = self._request(start, end)
        if answer.status == 401:
            self.close()
            self._server.log_in_again()
            answer = self._request(start, end)
        if answer.status in _BUSY:
            raise http.client.HTTPException("the server answered {} {}".format(answer.status, answer.reason))
        if answer.status not in (200, 206):
            self.close()
            raise VmbackupError(
                "download_refused",
                "{} cannot be read: the server answered {} {}.".format(self.name, answer.status, answer.reason),
                "Give the user Datastore.Browse and low-level file access; if the host refuses frozen disks as such, "
                "choose another transport.",
            )
        got, total = self._told(answer, start)
        if self._known is None and total >= 0:
            self._known = total
        wanted = end if end is not None else self._known
        if wanted is None or total != self._known or got != (start, wanted):
            self.close()
            raise self._contradiction(start, wanted, got, total)
        self._answer, self._at, self._end = answer, start, wanted
        return 0

    def _request(self, start: int, end: Optional[int]) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = self._server.connect()
        headers = {"Cookie": self._server.cookie(), "Accept-Encoding": "identity"}
        if end is not None:
            headers["Range"] = "bytes={}-{}".format(start, end - 1)
        self._connection.request("GET", self._server.url(self.name), headers=headers)
        return self._connection.getresponse()

    def _told(self, answer: http.client.HTTPResponse, start: int) -> Tuple[Tuple[int, int], int]:
        """Return the range that the server says it sends, and the file's size."""
        length = int(answer.headers.get("Content-Length") or -1)
        if answer.status == 200:
            return (0, length), length
        match = _RANGE.match(answer.headers.get("Content-Range") or "")
        if not match:
            return (start, start + length), -1
        first, last, total = (int(each) for each in match.groups())
        if length != last + 1 - first:
            return (first, first + length), total
        return (first, last + 1), total

    def _contradiction(self, start: int, end: Optional[int], got: Tuple[int, int], total: int) -> VmbackupError:
        return VmbackupError(
            "download_length",
            "{}: bytes {} to {} of {} were asked for, the server sends {} to {} of {}.".format(
                self.name, start, end, self._known, got[0], got[1], total
            ),
            "Look for what changes the file, or for a proxy that does not pass Range; then run the backup again.",
        )

    def _short(self, cause: str) -> VmbackupError:
        return VmbackupError(
            "download_short",
            "{} was not read in full: {}.".format(self.name, cause),
            "Check the network and the ESX host, then run the backup again.",
        )


def _tls(validate: bool) -> ssl.SSLContext:
    """Return the certificate policy: the system's CAs and those of REQUESTS_CA_BUNDLE, or none."""
    context = ssl.create_default_context()
    if not validate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
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
