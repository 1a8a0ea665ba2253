# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real OpenSSH server of the lab's own: as root in a network namespace, as a user on a loopback port.

Invariant: it reads keys from the lab's folder only, so it opens this machine to nobody but the lab.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
from pathlib import Path

from .daemon import Daemon
from .keys import KeyPair, make_key
from .network import Namespace

CONFIG = """\
Port {port}
ListenAddress {address}
HostKey {host_key}
PidFile none
AuthorizedKeysFile {keys} {role_keys}
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
LogLevel VERBOSE
"""


class SshServer:
    """An OpenSSH server whose link can be cut, restored and, in a namespace, slowed.

    folder: its own; holds configuration, host key and the enrolled keys.
    namespace: where it lives; None puts it on a free loopback port.
    """

    def __init__(self, folder: Path, name: str, *, namespace: Namespace | None, attached: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name, self.namespace = folder, name, namespace
        self.address = namespace.address if namespace else "127.0.0.1"
        self.port = 22 if namespace else free_port()
        self.user = getpass.getuser()
        self.keys_file = folder / "authorized_keys"
        # The product's role writes its own file whole; it must not lock the lab out.
        self.role_keys_file = folder / "authorized_keys.role"
        self.host_key = make_key(folder / "host_ed25519", f"{name} host")
        self._daemon = Daemon(f"sshd-{name}", folder.parent, attached=attached)

    @property
    def known_hosts_line(self) -> str:
        where = self.address if self.port == 22 else f"[{self.address}]:{self.port}"
        return f"{where} {' '.join(self.host_key.public_line.split()[:2])}"

    @property
    def pid(self) -> int:
        """The listener's process; 0 before the start."""
        return self._daemon.pid

    def enrol(self, key: KeyPair, options: str = "") -> None:
        """Let a key in; options as in authorized_keys, such as a forced command."""
        with self.keys_file.open("a") as keys:
            keys.write(f"{options} {key.public_line}\n".lstrip())

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.keys_file.touch(mode=0o600)
        config = self.folder / "sshd_config"
        config.write_text(
            CONFIG.format(
                port=self.port,
                address=self.address,
                host_key=self.host_key.private,
                keys=self.keys_file,
                role_keys=self.role_keys_file,
            )
        )
        sshd = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        if sshd is None:
            raise RuntimeError("sshd is missing; `make setup` installs or names the package")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        argv = [sshd, "-D", "-e", "-f", str(config)]
        self._daemon.start(self.namespace.inside(*argv) if self.namespace else argv)
        self._daemon.wait_until(self._answers)

    def stop(self) -> None:
        self._daemon.stop()

    def cut_link(self) -> None:
        """Cut the link: in a namespace packets vanish; on loopback the server and its sessions end."""
        if self.namespace:
            self.namespace.cut()
        else:
            self._end_sessions()
            self.stop()

    def restore_link(self) -> None:
        if self.namespace:
            self.namespace.restore()
        else:
            self.start()

    def slow_link(self, rate: str | None) -> None:
        """Limit the rate towards the server, such as "10mbit"; None lifts it. Raises RuntimeError on loopback."""
        if self.namespace is None:
            raise RuntimeError("a slow link needs a network namespace, and those need root")
        self.namespace.slow(rate)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.address, self.port), timeout=1) as link:
                return link.recv(4) == b"SSH-"
        except OSError:
            return False

    def _end_sessions(self) -> None:
        """End the server's sessions: their processes have sessions of their own, but the listener as parent."""
        if self.pid:
            subprocess.run(["pkill", "-TERM", "-P", str(self.pid)], check=False)


def free_port() -> int:
    """Return a loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
