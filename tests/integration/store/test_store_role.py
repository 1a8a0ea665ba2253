# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role store as root on this machine, with a throw-away user: what it makes, and who can do what by its keys."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.link import StoreAddress, as_record
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.sender import send_backup
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.ssh_link import SshLink
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.zipapp_builder import build_receiver
from tests.integration.opened_backup import committed
from tests.integration.staged_backup import fresh_id, noise, stage, wait_for
from tests.lab.keys import KeyPair, make_key
from tests.lab.site import CHECKOUT
from tests.lab.sshd import free_port

SYSTEM_PYTHON = "/usr/bin/python3"
SSHD_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile none
UsePAM no
StrictModes yes
Subsystem sftp internal-sftp
"""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path(SYSTEM_PYTHON).exists(), reason="making a user needs root, and a Python for it"
)


@dataclass(frozen=True)
class RoleStore:
    """A store that the role has made, behind an sshd with its defaults."""

    folder: Path
    user: str
    port: int
    host_key: str
    keys: dict[str, KeyPair]

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def link(self, key: str) -> SshLink:
        return SshLink(
            StoreAddress(
                host="127.0.0.1",
                port=self.port,
                user=self.user,
                key_file=str(self.keys[key].private),
                host_key=self.host_key,
            )
        )

    def play(self, *options: str) -> str:
        """Run the role's playbook; return its output."""
        argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.folder / "hosts.json"),
                str(CHECKOUT / "playbooks" / "store_setup.yml"), *options]  # fmt: skip
        env = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ssh(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run ssh, scp or sftp with the mover's key."""
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes"]
        argv = [program, "-P" if program != "ssh" else "-p", str(self.port), "-i", str(self.keys["mover"].private)]
        argv += [word for option in options for word in ("-o", option)]
        return subprocess.run([*argv, *arguments], input=b"", capture_output=True, timeout=30, check=False)


def inventory(store: RoleStore) -> dict[str, Any]:
    keys = [
        {"name": "mover", "vms": ["*"], "from": "127.0.0.1,::1"},
        {"name": "guest", "vms": ["web01"], "kinds": ["incremental"], "notes": ["failed"], "quota_bytes": 1 << 20},
        {"name": "far", "vms": ["*"], "from": "192.0.2.1"},
    ]
    for key in keys:
        key["public_key"] = store.keys[str(key["name"])].public_line
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "vmbackup_store_user": store.user,
        "vmbackup_store_home": str(store.folder / "home"),
        "vmbackup_store_root": str(store.root),
        "vmbackup_store_lib_dir": str(store.folder / "lib"),
        "vmbackup_store_policy_file": str(store.folder / "etc" / "policy.json"),
        "vmbackup_store_python": SYSTEM_PYTHON,
        "vmbackup_store_keys": keys,
    }
    return {"all": {"children": {"backup_store": {"hosts": {"here": variables}}}}}


@pytest.fixture(scope="module")
def store() -> Iterator[RoleStore]:
    folder = Path(tempfile.mkdtemp(prefix="vmb-role-"))
    folder.chmod(0o755)
    keys = {name: make_key(folder / "keys" / name, name) for name in ("mover", "guest", "far")}
    host = make_key(folder / "host_key", "host")
    made = RoleStore(folder, f"vmb{os.urandom(3).hex()}", free_port(), host.public_line, keys)
    (folder / "hosts.json").write_text(json.dumps(inventory(made)))
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(port=made.port, folder=folder))
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, folder)
        undo.callback(run_quietly, "groupdel", made.user)
        undo.callback(wait_for, lambda: run_quietly("userdel", made.user))  # once its last session has ended
        made.play()
        sshd = undo.enter_context(subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", str(folder / "sshd_config")]))
        undo.callback(sshd.terminate)
        wait_for(lambda: answers(made.port))
        yield made


def run_quietly(*argv: str) -> bool:
    return subprocess.run(argv, check=False, capture_output=True).returncode == 0


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def refused(store: RoleStore, key: str, act: Any) -> str:
    with store.link(key) as link, pytest.raises(VmbackupError) as caught:
        act(link)
    return caught.value.code


def test_a_second_run_changes_nothing_and_the_receiver_is_the_same_bytes(store: RoleStore) -> None:
    assert re.search(r"changed=0 .*failed=0", store.play())
    assert build_receiver() == build_receiver() == (store.folder / "lib" / "receiver.pyz").read_bytes()


def test_the_user_owns_the_store_and_nothing_that_grants_access_to_it(store: RoleStore) -> None:
    user = pwd.getpwnam(store.user)
    assert (store.root.stat().st_uid, store.root.stat().st_mode & 0o777) == (user.pw_uid, 0o700)
    for path in ("home", "home/.ssh", "home/.ssh/authorized_keys", "lib", "lib/receiver.pyz", "etc/policy.json"):
        status = (store.folder / path).stat()
        assert status.st_uid == 0 and status.st_mode & 0o022 == 0, path


def test_each_key_does_what_the_policy_says_and_no_more(store: RoleStore, tmp_path: Path) -> None:
    full = stage(tmp_path, "web01", noise(10_000))
    with store.link("mover") as mover:
        send_backup(mover, str(full), "web01", full.name)
    child = stage(tmp_path, "web01", noise(5_000), fresh_id("incremental"), full.name)
    with store.link("guest") as guest:
        send_backup(guest, str(child), "web01", child.name)
        assert guest.tip("web01").tip == child.name
        guest.note("web01", as_record("failed", None, {}))
    before = content(store.root)
    other = stage(tmp_path, "web02", noise(100), fresh_id("incremental"), full.name)
    assert refused(store, "guest", lambda link: send_backup(link, str(other), "web02", other.name)) == "not_granted"
    assert refused(store, "guest", lambda link: link.tip("web02")) == "not_granted"
    assert refused(store, "guest", lambda link: link.size("web01", full.name)) == "not_granted"
    assert refused(store, "guest", lambda link: link.note("web01", as_record("copy", None, {}))) == "not_granted"

    def late(link: SshLink) -> None:
        link.put("web01", child.name, "archive.tar.gz", 5_000, b"x")
        link.settle()

    assert refused(store, "guest", late) == "backup_id_taken"
    assert refused(store, "guest", lambda link: link.commit("web01", child.name, "0" * 64)) == "backup_id_taken"
    assert refused(store, "guest", lambda link: link.commit("web01", child.name, "0" * 64, True)) == "not_granted"
    big = stage(tmp_path, "web01", noise(2 << 20), fresh_id("incremental"), child.name)
    assert (
        refused(store, "guest", lambda link: send_backup(link, str(big), "web01", big.name)) == "store_quota_exceeded"
    )
    assert refused(store, "far", lambda link: link.tip("web01")) == "store_key_refused"
    assert {name: each for name, each in content(store.root).items() if ".incoming" not in name} == before
    assert [each.name for each in committed(store.root, "web01")] == sorted([full.name, child.name])


def test_a_key_gives_no_shell_no_file_and_no_way_through(store: RoleStore, tmp_path: Path) -> None:
    target = store.folder / "owned"
    before = content(store.root)
    asked = store.ssh("ssh", f"{store.user}@127.0.0.1", f"touch {target}; cat /etc/passwd")
    assert asked.stdout == b'{"vmbackup":1}\n'
    terminal = store.ssh("ssh", "-tt", f"{store.user}@127.0.0.1")
    assert b"PTY allocation request failed" in terminal.stderr and terminal.stdout in (b"", asked.stdout)
    (tmp_path / "file").write_text("x")
    for old in ([], ["-O"]):
        for way in ([str(tmp_path / "file"), f"{store.user}@127.0.0.1:{target}"],
                    [f"{store.user}@127.0.0.1:/etc/passwd", str(tmp_path / "stolen")]):  # fmt: skip
            assert store.ssh("scp", *old, *way).returncode != 0
    assert store.ssh("sftp", f"{store.user}@127.0.0.1").returncode != 0
    through = store.ssh("ssh", "-W", f"127.0.0.1:{store.port}", f"{store.user}@127.0.0.1")
    assert b"administratively prohibited" in through.stderr and b"SSH-2.0" not in through.stdout
    assert not target.exists() and not (tmp_path / "stolen").exists()
    assert content(store.root) == before


def content(root: Path) -> dict[str, str]:
    """Return the digest of every file under a folder."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
