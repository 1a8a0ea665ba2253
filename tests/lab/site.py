# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole site on one machine: simulated ESX hosts or vCenters, a store and a guest behind real ssh, an inventory.

Invariant: all that it starts is named in its folder, so that `stop` leaves nothing, whoever calls it and whenever.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from .certs import Authority
from .daemon import stop_recorded
from .esx_server import EsxServer
from .inventory import Inventory
from .keys import make_key
from .network import Namespace, can_make_namespaces
from .sshd import SshServer

CHECKOUT = Path(__file__).resolve().parents[2]
DATASTORES = MappingProxyType({"datastore1": 8192, "datastore2": 8192})
MODELS = MappingProxyType({"esx1": "esx"})


class LabSite:
    """The lab in a folder of its own.

    folder: made when missing; short, since sockets may lie in it.
    models: simulators to boot, name to "esx" or "vpx". datastores: of each, name to MiB.
    attached: whether its processes die with this one (False: `make lab`).
    namespaces: whether store and guest get a network of their own; None takes what this user may do.
    """

    def __init__(
        self,
        folder: Path,
        *,
        models: Mapping[str, str] = MODELS,
        datastores: Mapping[str, int] = DATASTORES,
        attached: bool = True,
        namespaces: bool | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.models, self.datastores, self.attached = dict(models), dict(datastores), attached
        self.namespaced = can_make_namespaces() if namespaces is None else namespaces
        self.store_root = self.folder / "store-root"
        self.inventory = Inventory(self.folder / "inventory")
        self.esx: dict[str, EsxServer] = {}
        self.store: SshServer
        self.guest: SshServer

    def __enter__(self) -> LabSite:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Boot everything; what an earlier lab in this folder left is stopped first."""
        stop_site(self.folder)
        for name in ("staging", "locks"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.store_root.mkdir(exist_ok=True)
        try:
            self._start_servers()
        except BaseException:
            self.stop()
            raise
        self._write_inventory()

    def stop(self) -> None:
        """Stop all processes and remove the namespaces; the folder stays."""
        stop_site(self.folder)

    @property
    def environment(self) -> dict[str, str]:
        """What ansible-playbook needs beside the inventory: the lab's CA, and no host key questions."""
        return {
            "REQUESTS_CA_BUNDLE": str(self.authority_bundle),
            "ANSIBLE_INVENTORY": str(self.inventory.folder),
            "ANSIBLE_INVENTORY_UNPARSED_FAILED": "1",
            # Connections of an earlier lab at the same address must not be taken for this one's.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder / "cp"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "ansible-tmp"),
            "ANSIBLE_NOCOLOR": "1",
        }

    @property
    def authority_bundle(self) -> Path:
        return self.folder / "ca" / "ca.pem"

    def add_guest(self, name: str, esx: str = "esx1", **variables: Any) -> None:
        """Put a VM of that simulator into the inventory; variables are the host's, such as vmbackup_vm_name."""
        server = self.esx[esx]
        connection = {"vmbackup_esx_hostname": server.hostname, "vmbackup_esx_port": server.port}
        self.inventory.add_guest(name, {**connection, **variables})

    def remove_guest(self, name: str) -> None:
        self.inventory.remove_guest(name)

    def prepare_store(self) -> subprocess.CompletedProcess[str]:
        """Run the store's own playbook, so that the receiver and its keys are the product's."""
        playbook = str(CHECKOUT / "playbooks" / "store_setup.yml")
        argv = [str(Path(sys.executable).with_name("ansible-playbook")), playbook]
        env = {**os.environ, **self.environment}
        return subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    def _start_servers(self) -> None:
        authority = Authority(self.folder / "ca")
        for name, model in self.models.items():
            cert = authority.issue(name)
            self.esx[name] = EsxServer(self.folder, name, model, cert, attached=self.attached)
            self.esx[name].start(self.datastores)
        self.store, self.guest = self._ssh_server("store"), self._ssh_server("guest")
        admin = make_key(self.folder / "keys" / "admin", "lab admin")
        if self.store.namespace and self.guest.namespace:
            self.guest.namespace.join(self.store.namespace)
        for server in (self.store, self.guest):
            server.enrol(admin)
            server.start()

    def _ssh_server(self, name: str) -> SshServer:
        namespace = Namespace(self.folder, name) if self.namespaced else None
        if namespace:
            namespace.create()
        return SshServer(self.folder / name, name, namespace=namespace, attached=self.attached)

    def _write_inventory(self) -> None:
        known_hosts = self.folder / "known_hosts"
        known_hosts.write_text(f"{self.store.known_hosts_line}\n{self.guest.known_hosts_line}\n")
        mover = make_key(self.folder / "keys" / "mover", "lab mover")
        self.inventory.write_hosts(list(self.esx), self._ssh_login(self.store))
        self.inventory.write_group("guests", {**self._ssh_login(self.guest), **self._guest_files()})
        first = next(iter(self.esx.values()))
        self.inventory.write_group(
            "all",
            {
                "vmbackup_esx_hostname": first.hostname,
                "vmbackup_esx_port": first.port,
                "vmbackup_esx_username": first.user,
                "vmbackup_esx_password": first.password,
                "vmbackup_esx_validate_certs": True,
                "vmbackup_store_host": self.store.address,
                "vmbackup_store_port": self.store.port,
                "vmbackup_store_user": self.store.user,
                "vmbackup_store_key_file": str(mover.private),
                "vmbackup_store_known_hosts": str(known_hosts),
                "vmbackup_staging_dir": str(self.folder / "staging"),
                "vmbackup_lock_dir": str(self.folder / "locks"),
                "vmbackup_controller_id": "lab",
            },
        )
        self.inventory.write_group("backup_store", self._store_role(mover.public_line))

    def _store_role(self, mover_key: str) -> dict[str, Any]:
        """Return the variables of role store: everything in the lab's folder, as the user who runs the lab."""
        home = self.folder / "store"
        return {
            "vmbackup_store_become": False,
            "vmbackup_store_manage_user": False,
            "vmbackup_store_home": str(home),
            "vmbackup_store_root": str(self.store_root),
            "vmbackup_store_lib_dir": str(home / "lib"),
            "vmbackup_store_policy_file": str(home / "policy.json"),
            "vmbackup_store_authorized_keys": str(self.store.role_keys_file),
            "vmbackup_store_python": os.path.realpath(sys.executable),
            "vmbackup_store_keys": [{"name": "mover", "public_key": mover_key, "vms": ["*"]}],
        }

    def _guest_files(self) -> dict[str, Any]:
        """Return the variables of Phase III: all guests are one machine here, so each names its own folders itself."""
        return {
            "vmbackup_baseline": False,
            "vmbackup_file_paths": [],
            "vmbackup_guest_become": False,
            "vmbackup_guest_state_dir": str(self.folder / "guest-state"),
        }

    def _ssh_login(self, server: SshServer) -> dict[str, Any]:
        return {
            "ansible_host": server.address,
            "ansible_port": server.port,
            "ansible_user": server.user,
            "ansible_ssh_private_key_file": str(self.folder / "keys" / "admin"),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.folder / 'known_hosts'} -o ConnectTimeout=10 "
            "-o ServerAliveInterval=2 -o ServerAliveCountMax=3",
            # A user's sshd may not hand out terminals where /dev/pts does not give them the group tty.
            "ansible_ssh_use_tty": os.geteuid() == 0,
            "ansible_python_interpreter": sys.executable,
        }


def stop_site(folder: Path) -> int:
    """Stop what a lab in this folder has running; return how many processes that were."""
    stopped = sum(stop_recorded(pid_file) for pid_file in sorted((folder / "pids").glob("*.pid")))
    if os.geteuid() == 0 and shutil.which("ip"):
        for label in ("store", "guest"):
            Namespace(folder.resolve(), label).remove()
    return stopped
