# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store behind a real OpenSSH server: what its link says of each thing that can be wrong on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.link import StoreAddress
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.ssh_link import SshLink
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.zipapp_builder import build_receiver
from tests.lab.keys import make_key
from tests.lab.sshd import SshServer


@pytest.fixture
def address(tmp_path):
    """Start a store with one key; returns its address."""
    server = SshServer(tmp_path / "sshd", "store", namespace=None, attached=True)
    key = make_key(tmp_path / "mover", "mover")
    (tmp_path / "receiver.pyz").write_bytes(build_receiver())
    rights = {"vms": ["*"], "kinds": ["full"], "notes": ["failed"]}
    policy = {"format": 1, "root": str(tmp_path / "root"), "keys": {"mover": rights}}
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    forced = f"{sys.executable} -I {tmp_path}/receiver.pyz --policy {tmp_path}/policy.json --key mover"
    server.enrol(key, f'restrict,command="{forced}"')
    server.start()
    yield StoreAddress(
        host="127.0.0.1",
        port=server.port,
        user=server.user,
        key_file=str(key.private),
        host_key=server.known_hosts_line,
    )
    server.stop()


def code_of(address):
    with SshLink(address) as link, pytest.raises(VmbackupError) as caught:
        link.tip("web01")
    return caught.value.code


def test_a_record_and_bytes_arrive_over_ssh(address, tmp_path):
    with SshLink(address) as link:
        link.note("web01", {"kind": "failed", "backup_id": None, "body": {}})
        assert link.tip("web01") is None
    assert len(list((tmp_path / "root/web01/.records").iterdir())) == 1


def test_what_the_client_asks_to_run_is_not_run(address, tmp_path):
    argv = ["ssh", "-T", "-p", str(address.port), "-i", address.key_file, "-o", "StrictHostKeyChecking=no",
            "-o", "UserKnownHostsFile=/dev/null", f"{address.user}@{address.host}", f"touch {tmp_path}/owned"]  # fmt: skip
    done = subprocess.run(argv, input=b"", capture_output=True, timeout=30, check=False)
    assert done.stdout == b'{"vmbackup":1}\n'
    assert not (tmp_path / "owned").exists()


def test_each_thing_that_can_be_wrong_has_its_own_code(address, tmp_path):
    other = make_key(tmp_path / "other", "other")
    (tmp_path / "empty").touch()
    assert code_of(replace(address, key_file=str(other.private))) == "store_key_refused"
    assert code_of(replace(address, host_key=" ".join(other.public_line.split()[:2]))) == "store_host_key_changed"
    assert code_of(replace(address, host_key="", known_hosts=str(tmp_path / "empty"))) == "store_host_key_unknown"
    assert code_of(replace(address, port=1)) == "store_unreachable"
    assert code_of(replace(address, key_file=str(tmp_path / "nothing"))) == "store_key_unusable"
    (tmp_path / "policy.json").write_text("{}")
    assert code_of(address) == "store_receiver_failed"
    (tmp_path / "receiver.pyz").unlink()
    assert code_of(address) == "store_receiver_missing"
