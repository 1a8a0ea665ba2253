# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.vmx import (
    ArchivedDisk,
    parse_vmx,
    rewrite_for_archive,
)

SAMPLE = b"""#!/usr/bin/vmware
.encoding = "UTF-8"
displayName = "say |22hi|22 gr\xc3\xb6\xc3\x9fe"
ctkEnabled = "TRUE"
scsi0.present = "TRUE"
scsi0:0.fileName = "web-000002.vmdk"
scsi0:0.present = "TRUE"
scsi0:0.ctkEnabled = "TRUE"
SCSI0:1.filename = "/vmfs/volumes/x/web_1-000002.vmdk"
scsi0:1.present = "TRUE"
scsi0:10.fileName = "web_2-000001.vmdk"
sata0:0.fileName = "/usr/lib/tools/linux.iso"
checkpoint.vmState = "web-1.vmss"
sched.cpu.units = "mhz"
""".replace(b"\n", b"\r\n")


@given(st.binary())
def test_any_file_comes_back_byte_for_byte(data: bytes) -> None:
    assert parse_vmx(data).render() == data


@given(st.text(st.characters(blacklist_categories=("Cs",))), st.sampled_from(["UTF-8", "nonsense", "utf-16"]))
def test_any_value_that_is_set_is_read_again(value: str, encoding: str) -> None:
    vmx = parse_vmx('.encoding = "{}"\nannotation = "x"\nlast = "y"'.format(encoding).encode())
    changed = parse_vmx(vmx.set("Annotation", value).set("new.key", value).render())
    assert changed.get("annotation") == changed.get("new.key") == value
    assert changed.get("last") == "y"


def test_escapes_and_encodings_are_read() -> None:
    assert parse_vmx(SAMPLE).get("displayname") == 'say "hi" größe'
    gbk = '.encoding = "GBK"\ndisplayName = "测试"\n'.encode("gbk")
    assert parse_vmx(gbk).get("displayName") == "测试"
    assert parse_vmx(gbk).set("a", "测").render() == gbk + 'a = "测"\n'.encode("gbk")


def test_a_value_that_the_encoding_cannot_hold_is_refused() -> None:
    with pytest.raises(VmbackupError) as caught:
        parse_vmx(b'.encoding = "windows-1252"\n').set("a", "测")
    assert caught.value.code == "vmx_encoding"


def test_the_archive_vmx_names_its_own_disks_and_changes_nothing_else() -> None:
    disks = [ArchivedDisk("scsi0:0", "web.vmdk"), ArchivedDisk("scsi0:10", "web_2.vmdk")]
    vmx, dropped = rewrite_for_archive(parse_vmx(SAMPLE), disks, ["scsi0:1"])
    expected = (
        SAMPLE.decode("utf-8").replace("web-000002", "web").replace("web_2-000001", "web_2").replace("web-1.vmss", "")
    )
    gone = ("ctkEnabled", "scsi0:0.ctkEnabled", "SCSI0:1", "scsi0:1.")
    kept = [line for line in expected.splitlines(True) if not line.startswith(gone)]
    assert vmx.render().decode("utf-8") == "".join(kept)
    assert {key for key, _reason in dropped} == {
        "ctkEnabled",
        "scsi0:0.ctkEnabled",
        "SCSI0:1.filename",
        "scsi0:1.present",
        "checkpoint.vmState",
    }


def test_a_disk_that_only_one_side_knows_is_an_error() -> None:
    with pytest.raises(VmbackupError) as caught:
        rewrite_for_archive(parse_vmx(SAMPLE), [ArchivedDisk("scsi0:0", "web.vmdk")], ["scsi0:1"])
    assert caught.value.code == "vmx_disk_unknown"
    with pytest.raises(VmbackupError) as caught:
        rewrite_for_archive(parse_vmx(b""), [ArchivedDisk("nvme0:0", "web.vmdk")], [])
    assert caught.value.code == "vmx_disk_missing"


def test_a_disk_file_of_a_device_that_is_not_present_is_let_be() -> None:
    stale = SAMPLE + b'ide1:0.present = "FALSE"\nide1:0.fileName = "old.vmdk"\n'
    disks = [ArchivedDisk("scsi0:0", "web.vmdk"), ArchivedDisk("scsi0:10", "web_2.vmdk")]
    vmx, _dropped = rewrite_for_archive(parse_vmx(stale), disks, ["scsi0:1"])
    assert vmx.get("ide1:0.fileName") == "old.vmdk"
