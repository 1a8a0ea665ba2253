# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build and run the simulator.

Owns the binaries' cache (one for each state of the sources, so checkouts never take one another's; built once even if
several ask) and one process per Simulator: when ``start`` has returned it answers, when ``stop`` has returned it is gone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import select
import subprocess
from pathlib import Path
from typing import Dict, List, Optional

from .control import Control

SOURCES = Path(__file__).parent / "esxsim"
GO_PACKAGES = "/usr/share/gocode"
START_LIMIT = 30.0
KEPT = 8  # binaries


class SimulatorError(Exception):
    """The simulator could not be built or started."""


def cache_folder() -> Path:
    """Return where builds are kept: VMBACKUP_BUILD, or a folder of the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("VMBACKUP_BUILD") or cache / "vmbackup-esx" / "build")


def build(race: bool = False) -> Path:
    """Build the simulator unless there is a binary of these very sources, and return the binary.

    :param race: build with Go's race detector (VMBACKUP_RACE=1 asks for the same).
    :raises SimulatorError: with the compiler's words.
    """
    race = race or bool(os.environ.get("VMBACKUP_RACE"))
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "esxsim.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        binary = folder / "-".join(["esxsim", *(["race"] if race else []), _fingerprint()])
        if not binary.exists():
            _compile(binary, race)
            _forget_old(folder)
    return binary


def _fingerprint() -> str:
    """Return a digest of the sources' names and contents."""
    digest = hashlib.sha256()
    for source in sorted(SOURCES.glob("*.go")):
        content = source.read_bytes()
        digest.update(f"{source.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _forget_old(folder: Path) -> None:
    """Keep the newest few binaries; one that still runs loses its name, not its content."""
    built = sorted(folder.glob("esxsim-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for binary in built[KEPT:]:
        binary.unlink()


def _compile(binary: Path, race: bool) -> None:
    env = dict(os.environ, GO111MODULE="off", GOPATH=GO_PACKAGES)
    env.setdefault("GOCACHE", str(cache_folder() / "gocache"))
    fresh = binary.with_name(binary.name + ".new")
    command = ["go", "build", *(["-race"] if race else []), "-o", str(fresh), "."]
    result = subprocess.run(
        command, cwd=SOURCES, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise SimulatorError(f"go build failed: {result.stderr}")
    fresh.replace(binary)


class Simulator:
    """One running ESX host (``esx``) or vCenter (``vpx``).

    :param state: folder for the datastores and, unless given, the certificate.
    :param datastores: name to capacity in MiB.
    :param listen: address of the API; port 0 picks a free one.
    :param options: further flags without their dash: ``version``, ``hosts``, ``cert``, ``key``.
    """

    user = "root"

    def __init__(
        self,
        state: Path,
        model: str = "esx",
        datastores: Optional[Dict[str, int]] = None,
        listen: str = "127.0.0.1:0",
        control: str = "127.0.0.1:0",
        password: str = "VMware1!",
        **options: str,
    ) -> None:
        self.state = Path(state)
        self.model = model
        self.password = password
        self.process: Optional[subprocess.Popen[str]] = None
        self._flags = {
            "model": model,
            "state": str(state),
            "listen": listen,
            "control": control,
            "password": password,
            **options,
        }
        self._datastores = datastores or {"datastore1": 4096}

    def start(self) -> Simulator:
        """Start and wait until it answers; sets url, host, port, control, datacenter, cert."""
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "esxsim.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        ready = select.select([self.process.stdout], [], [], START_LIMIT)[0]
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.stop()
            raise SimulatorError(f"no ready line; see {self.state / 'esxsim.log'}")
        said = json.loads(line)
        self.url: str = said["url"]
        self.host, port = said["url"].rpartition("/")[2].rsplit(":", 1)
        self.port = int(port)
        self.control = Control(said["control"])
        self.datacenter: str = said["datacenter"]
        self.cert: str = said["cert"]
        return self

    def _command(self) -> List[str]:
        command = [str(build())]
        for name, value in self._flags.items():
            command += [f"-{name}", value]
        for name, capacity in self._datastores.items():
            command += ["-datastore", f"{name}={capacity}"]
        return command

    def stop(self) -> None:
        """End the process."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None

    def __enter__(self) -> Simulator:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
