# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One file of a datastore, read over HTTPS `/folder`.

Invariants: what the server says of lengths must agree with what is expected; a download that breaks is taken up where
it stopped, a bounded number of times; nothing waits for ever.
"""

from __future__ import annotations

import http.client
import re
import ssl
import time
from functools import partial
from types import TracebackType
from typing import Any, List, Optional, Tuple, Type

from ..core.errors import VmbackupError
from .faults import certificate_error
from .folder_server import FolderServer

_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
_PROGRESS = 8 << 20  # bytes after which earlier breaks are forgotten
_SKIP = 1 << 20  # bytes that are rather read and thrown away than asked for anew
_BUSY = (502, 503, 504)
_RANGE = re.compile(r"^bytes ([0-9]+)-([0-9]+)/([0-9]+)$")


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
        self.size = self._retried(self._measured) if size is None else size

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
        """Let the connection go; harmless when it is gone."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._answer is None and connection.sock is not None:
            self._server.give_back(connection)
        else:
            connection.close()
        self._answer = None

    def _drop(self) -> None:
        """Close the connection, whatever is under way on it."""
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
                self._drop()
                self._since_break = 0
                self._breaks.append("{}: {}".format(type(error).__name__, error))
                if len(self._breaks) > len(_PAUSES):
                    raise self._short(
                        "the download broke {} times, last by {}".format(len(self._breaks), self._breaks[-1])
                    ) from error
                time.sleep(_PAUSES[len(self._breaks) - 1])

    def _measured(self) -> int:
        """Ask for the file; return its size as the server tells it."""
        self._ask(0, None if self._streaming else 1)
        return self._known or 0

    def _some(self, offset: int, view: memoryview) -> int:
        """Read some of what is wanted; return how much."""
        answer = self._position(offset, len(view))
        count = answer.readinto(view[: min(len(view), self._end - self._at)])
        if not count:
            raise http.client.IncompleteRead(b"", self._end - self._at)
        self._at += count
        if self._at == self._end:
            answer.read()  # lets the connection be used again
            self._answer = None
        return count

    def _position(self, offset: int, length: int) -> http.client.HTTPResponse:
        """Return an answer whose next byte is the one at `offset`."""
        answer = self._answer
        if answer is not None and self._at <= offset < self._end and offset - self._at <= _SKIP:
            self._skip(answer, offset - self._at)
            return answer
        if answer is not None:
            self._drop()
        return self._ask(offset, self.size if self._streaming else offset + length)

    def _skip(self, answer: http.client.HTTPResponse, count: int) -> None:
        while count:
            data = answer.read(min(count, 1 << 16))
            if not data:
                raise http.client.IncompleteRead(b"", count)
            count -= len(data)
            self._at += len(data)

    def _ask(self, start: int, end: Optional[int]) -> http.client.HTTPResponse:
        """Ask for the bytes from `start` to `end` (None: all there are)."""
        answer = self._request(start, end)
        if answer.status == 401:
            self._drop()
            self._server.log_in_again()
            answer = self._request(start, end)
        if answer.status in _BUSY:
            raise http.client.HTTPException("the server answered {} {}".format(answer.status, answer.reason))
        if answer.status not in (200, 206):
            self._drop()
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
            self._drop()
            raise self._contradiction(start, wanted, got, total)
        self._answer, self._at, self._end = answer, start, wanted
        return answer

    def _request(self, start: int, end: Optional[int]) -> http.client.HTTPResponse:
        used = self._connection is not None
        if self._connection is None:
            self._connection, used = self._server.take()
        if used:
            try:
                return self._sent(self._connection, start, end)
            except (ConnectionError, ssl.SSLError, http.client.HTTPException):  # closed by the server while it was free
                self._drop()
                self._connection = self._server.connect()
        return self._sent(self._connection, start, end)

    def _sent(
        self, connection: http.client.HTTPSConnection, start: int, end: Optional[int]
    ) -> http.client.HTTPResponse:
        headers = {"Cookie": self._server.cookie(), "Accept-Encoding": "identity"}
        if end is not None:
            headers["Range"] = "bytes={}-{}".format(start, end - 1)
        connection.request("GET", self._server.url(self.name), headers=headers)
        return connection.getresponse()

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
