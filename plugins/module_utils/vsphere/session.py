# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A session with an ESX host or a vCenter.

Invariants: nothing waits for ever on a socket; a call that may have reached the server is never sent again without the
caller's word; an expired session is opened again without the caller noticing; the password is shown nowhere.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Callable, Dict, Iterator, Optional, TypeVar

from ansible_collections.vmware.vmware.plugins.module_utils.clients.errors import ApiAccessError, MissingLibError
from ansible_collections.vmware.vmware.plugins.module_utils.clients.pyvmomi import PyvmomiClient

from ..core.errors import VmbackupError
from .faults import CONNECTION_ERRORS, certificate_error, told
from .pyvmomi import vim, vmodl

_SOCKET_TIMEOUT = 60.0
# ESX closes idle connections on its side; a request on such a connection looks like a lost answer.
_IDLE_CONNECTION = 20.0
_REPEATS = (1.0, 2.0, 4.0)

T = TypeVar("T")


@dataclass(frozen=True)
class Connection:
    """Where and as whom to log in; the names are those of vmware.vmware's options."""

    hostname: str
    username: str
    password: str = field(repr=False)
    port: int = 443
    validate_certs: bool = True
    proxy_host: Optional[str] = None
    proxy_port: Optional[int] = None

    @property
    def place(self) -> str:
        """host:port, as messages name it."""
        return "{}:{}".format(self.hostname, self.port)


class _Client(PyvmomiClient):  # type: ignore[misc]
    """vmware.vmware's client, without its log-out at exit: Session.close does that, once and in time."""

    def connect_to_api(self, password: str, **options: Any) -> Any:
        return super().connect_to_api(password=password, **dict(options, disconnect_atexit=False))


class Session:
    """An open session; a context manager that logs out."""

    def __init__(self, connection: Connection, client: PyvmomiClient) -> None:
        self.connection = connection
        self.client = client
        self._stub = _plain_stub(client.si._stub)
        self._stub.schemeArgs["timeout"] = _SOCKET_TIMEOUT
        self._stub.connectionPoolTimeout = _IDLE_CONNECTION
        self._stub.DropConnections()
        self.si = vim.ServiceInstance("ServiceInstance", self._stub)
        self.content = self.si.content
        self._login_lock = threading.Lock()
        self._titles: Dict[str, str] = {}

    @classmethod
    def open(cls, connection: Connection) -> Session:
        """Log in.

        Raises esx_unreachable, esx_login, esx_certificate, esx_permission, missing_library.
        """
        what = "logging in to {} as {}".format(connection.place, connection.username)
        _trust(connection.validate_certs)
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_SOCKET_TIMEOUT)  # the client has no option for it
        try:
            client = _Client(**vars(connection))
            return cls(connection, client)
        except ApiAccessError as error:
            raise _refused(what, error) from error
        except MissingLibError as error:
            raise VmbackupError(
                "missing_library", str(error), "install pyvmomi and requests for the Python that runs this task"
            ) from error
        except (vmodl.MethodFault, *CONNECTION_ERRORS) as error:
            raise told(what, error) from error
        finally:
            socket.setdefaulttimeout(before)

    @property
    def is_vcenter(self) -> bool:
        """Whether this is a vCenter and not a lone ESX host."""
        return bool(self.content.about.apiType == "VirtualCenter")

    def ask(self, what: str, call: Callable[[], T], repeatable: bool = False) -> T:
        """Make one call to the server.

        what: what it does and to which object, for the message of an error.
        call: makes the call; it is made a second time only when the server refused it because the session had ended.
        repeatable: the call only reads, so it is sent again a few times when the connection breaks.
        Raises the errors of faults.told; after a broken connection the call may or may not have had its effect.
        """
        for pause in _REPEATS if repeatable else ():
            try:
                return self._ask_once(what, call)
            except VmbackupError as error:
                if error.code != "esx_unreachable":
                    raise
            time.sleep(pause)
        return self._ask_once(what, call)

    def _ask_once(self, what: str, call: Callable[[], T]) -> T:
        cookie = self._stub.cookie
        try:
            try:
                return call()
            except vim.fault.NotAuthenticated:
                self._log_in_again(cookie)
                return call()
        except (vmodl.MethodFault, *CONNECTION_ERRORS) as error:
            raise told(what, error) from error

    def _log_in_again(self, ended: str) -> None:
        with self._login_lock:
            if self._stub.cookie != ended:
                return  # another thread was here first
            self._stub.cookie = ""
            self.content.sessionManager.Login(self.connection.username, self.connection.password, None)

    def now(self) -> datetime:
        """Return the server's clock, aware."""
        answer: datetime = self.ask("reading the clock of " + self.connection.place, self.si.CurrentTime, True)
        return answer

    def title(self, managed: Any) -> str:
        """Return how messages name an object: its name and id, or its id alone where the name cannot be read."""
        moid = str(managed._moId)
        if moid not in self._titles:
            try:
                name = self.ask("reading the name of " + moid, lambda: managed.name, True)
            except VmbackupError:
                return moid
            self._titles[moid] = "'{}' ({})".format(name, moid)
        return self._titles[moid]

    def cookie(self) -> str:
        """Return `vmware_soap_session=...`, as a Cookie header for /folder takes it."""
        return str(self._stub.cookie).split(";", 1)[0]

    @contextmanager
    def keep_alive(self, interval: float = 300.0) -> Iterator[None]:
        """Ask for the time every `interval` seconds while the block runs: idle sessions end after 30 minutes."""
        stop = threading.Event()
        thread = threading.Thread(target=self._touch, args=(stop, interval), name="keep-alive", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(timeout=1.0)

    def _touch(self, stop: threading.Event, interval: float) -> None:
        while not stop.wait(interval):
            with suppress(VmbackupError):  # whoever needs the session next meets the same error and reports it
                self.now()

    def close(self) -> None:
        """Log out; a server that no longer answers is left alone."""
        with suppress(vmodl.MethodFault, *CONNECTION_ERRORS):
            self.content.sessionManager.Logout()
        self._stub.DropConnections()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _plain_stub(stub: Any) -> Any:
    """Return the stub that sends each call once: behind a proxy the client wraps it in one that repeats any call."""
    return getattr(stub, "soapStub", stub)


def _trust(validate: bool) -> None:
    """Make REQUESTS_CA_BUNDLE mean what vmware.vmware documents, in whichever way pyVmomi speaks HTTPS.

    requests lets the variable beat verify=False, and the ssl module does not know it. It beats SSL_CERT_FILE, which
    speaks to every program.
    """
    if not validate:
        os.environ.pop("REQUESTS_CA_BUNDLE", None)
        os.environ.pop("CURL_CA_BUNDLE", None)
        return
    bundle = os.environ.get("REQUESTS_CA_BUNDLE")
    if bundle:
        os.environ["SSL_CERT_DIR" if os.path.isdir(bundle) else "SSL_CERT_FILE"] = bundle


def _refused(what: str, error: ApiAccessError) -> VmbackupError:
    cause = error.__context__
    if isinstance(cause, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
        return certificate_error(what, cause or error)
    if isinstance(cause, (vim.fault.InvalidLogin, vim.fault.NoPermission)):
        return told(what, cause)
    if cause is None:
        return VmbackupError("esx_login", str(error), "set hostname, username and password")
    return VmbackupError(
        "esx_unreachable",
        "{}: {}".format(what, getattr(cause, "msg", None) or cause),
        "check hostname, port, proxy_host and the network between this node and the ESX host or vCenter",
    )
