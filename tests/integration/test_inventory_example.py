# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""inventory.example as it stands: read by Ansible, and used with nothing changed but addresses and secrets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable
from uuid import uuid4

import pytest
import yaml

from tests.lab.fixtures import LabVm, Played
from tests.lab.site import CHECKOUT, LabSite

EXAMPLE = CHECKOUT / "inventory.example"
# What hosts.yml says of db01.
DB01 = {"name": "DB 01 (production)", "instance_uuid": "5029c440-85ee-c2a1-e9dd-b63e39364603"}
LOGIN = (
    "ansible_host",
    "ansible_port",
    "ansible_user",
    "ansible_ssh_private_key_file",
    "ansible_ssh_common_args",
    "ansible_python_interpreter",
)

Make = Callable[..., LabVm]
Play = Callable[..., Played]


def listed(inventory: Path, env: dict[str, str]) -> dict[str, Any]:
    """Return what ansible-inventory makes of a folder; a source that does not parse is an error."""
    argv = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(inventory), "--list"]
    env = {**os.environ, **env, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def variables(lab: LabSite, group: str) -> dict[str, Any]:
    """Return what the lab's own inventory says for a group."""
    content: dict[str, Any] = yaml.safe_load((lab.inventory.folder / "group_vars" / f"{group}.yml").read_text())
    return content


def move_to_the_lab(lab: LabSite, folder: Path, esx: str) -> None:
    """Put the lab's addresses and secrets over those of the example, in files that Ansible reads after its own."""
    site = variables(lab, "all")
    server = lab.esx[esx]
    places = {name: site[name] for name in site if name.startswith("vmbackup_store_")}
    places["vmbackup_staging_dir"], places["vmbackup_lock_dir"] = (
        site["vmbackup_staging_dir"],
        site["vmbackup_lock_dir"],
    )
    vsphere = {"vmbackup_esx_hostname": server.hostname, "vmbackup_esx_port": server.port}
    own = ("vmbackup_guest_", "vmbackup_file_", "vmbackup_baseline")
    login = {name: value for name, value in variables(lab, "guests").items() if name in LOGIN or name.startswith(own)}
    guests = {**places, **vsphere, **login, "vmbackup_esx_username": server.user}
    (folder / "group_vars" / "guests" / "zz_lab.yml").write_text(yaml.safe_dump(guests))


@pytest.fixture
def example(tmp_path: Path) -> Callable[[str], Path]:
    """Return copy(kind): a copy of that kind of inventory, to be changed."""
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    return lambda kind: tmp_path / kind


def test_the_static_example_names_guests_hosts_and_store() -> None:
    answer = listed(EXAMPLE / "static", {})
    assert set(answer["_meta"]["hostvars"]) == {"web01", "db01", "files01", "store.example.org"} | {
        "esx1.example.org",
        "esx2.example.org",
    }
    assert set(answer["guests"]["children"]) == {"on_esx1", "on_esx2"}
    assert answer["_meta"]["hostvars"]["db01"]["vmbackup_esx_hostname"] == "esx1.example.org"


def test_the_static_example_backs_up_its_guests(
    lab: LabSite, fresh_vm: Make, play: Play, example: Callable[[str], Path]
) -> None:
    folder = example("static")
    move_to_the_lab(lab, folder, "esx1")
    esx = {"vmbackup_esx_hostname": lab.esx["esx1"].hostname}
    for group in ("on_esx1", "on_esx2"):
        (folder / "group_vars" / f"{group}.yml").write_text(yaml.safe_dump(esx))
    vault = {"vault_vmbackup_esx_password": lab.esx["esx1"].password}
    (folder / "group_vars" / "all" / "vault.yml").write_text(yaml.safe_dump(vault))
    dumped = folder.parent / "dumped"
    task = [{"name": "Stand in for the database", "ansible.builtin.file": {"path": str(dumped), "state": "touch"}}]
    (folder.parent / "tasks" / "dump_database.yml").write_text(yaml.safe_dump(task))
    for name in ("web01", "files01"):
        fresh_vm(name, power="on")
    fresh_vm(**DB01, power="on", disks=[{"size_mb": 8}, {"size_mb": 8}])

    played = play("full_backup.yml", "-i", str(folder))

    assert played.rc == 0, played.output
    assert "3 of 3 good" in played.stdout
    assert dumped.exists()
    manifests = {name: manifest(lab, name) for name in ("web01", "db01", "files01")}
    assert manifests["db01"]["vm"]["vsphere_name"] == DB01["name"]
    assert "Hard disk 2" in {each["what"] for each in manifests["db01"]["left_out"]}
    assert manifests["files01"]["consistency"] == "application"
    assert lab.esx["esx1"].password not in played.output


@pytest.mark.parametrize("esx", ["esx1", "vc1"])
def test_the_dynamic_example_lists_what_vsphere_knows_and_backs_it_up(
    lab: LabSite, fresh_vm: Make, play: Play, example: Callable[[str], Path], esx: str
) -> None:
    server, folder = lab.esx[esx], example("dynamic")
    for plugin in ("guests.vms.yml", "hosts.esxi_hosts.yml"):
        options = yaml.safe_load((folder / plugin).read_text())
        options.update(hostname=server.hostname, port=server.port, username=server.user)
        (folder / plugin).write_text(yaml.safe_dump(options))
    move_to_the_lab(lab, folder, esx)
    uuid = str(uuid4())
    vm = fresh_vm(f"dynamic {esx}", esx=esx, power="on", instance_uuid=uuid)
    fresh_vm(f"template-{esx}", esx=esx, template=True, power="off")
    env = {"VMWARE_PASSWORD": server.password, "SSL_CERT_FILE": str(lab.authority_bundle)}

    answer = listed(folder, env)

    assert answer["esx_hosts"]["hosts"]
    assert vm.name in answer["guests"]["hosts"]
    assert f"template-{esx}" not in answer["_meta"]["hostvars"]
    assert uuid in str(answer["_meta"]["hostvars"][vm.name]["vmbackup_vm_uuid"])
    played = play("full_backup.yml", "-i", str(folder), env=env)
    assert played.rc == 0, played.output
    assert manifest(lab, vm.name)["vm"]["instance_uuid"] == uuid
    assert server.password not in played.output


def manifest(lab: LabSite, name: str) -> dict[str, Any]:
    """Return the manifest of a VM's only backup."""
    (path,) = (lab.store_root / name.replace(" ", "%20")).glob("2*-full-*/manifest.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content
