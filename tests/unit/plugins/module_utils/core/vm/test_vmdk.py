# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.vm.vmdk import (
    parse_descriptor,
    render_descriptor,
)

DELTA = b"""# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=1A2b3c4d
parentCID=fffffffe
isNativeSnapshot="no"
createType="vmfsSparse"
parentFileNameHint="web.vmdk"
# Extent description
RW 2048 VMFSSPARSE "web-000001-delta.vmdk"

# Change Tracking File
changeTrackPath="web-000001-ctk.vmdk"

# The Disk Data Base
#DDB

ddb.longContentID = "0123"
"""


def test_a_delta_of_esx_is_read() -> None:
    found = parse_descriptor(DELTA, "x")
    assert (found.create_type, found.cid, found.parent, found.capacity) == (
        "vmfsSparse",
        "1a2b3c4d",
        "web.vmdk",
        1 << 20,
    )
    assert (found.extents[0].kind, found.extents[0].name) == ("VMFSSPARSE", "web-000001-delta.vmdk")
    assert found.fields["ddb.longcontentid"] == "0123"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"KDMV",
        DELTA.replace(b"RW 2048", b"XX 2048"),
        DELTA.replace(b"createType", b"x"),
        DELTA.replace(b"UTF-8", b"odd"),
        DELTA + b"\xff",
        DELTA + b"#" * (1 << 20),
    ],
)
def test_a_descriptor_that_is_not_understood_is_refused(data: bytes) -> None:
    with pytest.raises(VmbackupError) as caught:
        parse_descriptor(data, "[ds] a/b.vmdk")
    assert caught.value.code == "descriptor_invalid"
    assert "[ds] a/b.vmdk" in str(caught.value)


@given(st.binary(max_size=40), st.integers(0, len(DELTA)), st.integers(0, 40))
def test_damaged_descriptors_raise_nothing_else(noise: bytes, at: int, cut: int) -> None:
    try:
        parse_descriptor(DELTA[:at] + noise + DELTA[at + cut :], "x")
    except VmbackupError as error:
        assert error.code == "descriptor_invalid"


@given(st.integers(1, 1 << 33), st.sampled_from(["ide", "lsilogic", "buslogic"]), st.booleans())
def test_our_descriptor_is_read_again(sectors: int, adapter: str, thin: bool) -> None:
    uuid = "6000C293-7ba0-3a03-9f22-56c29a4800ff"
    data = render_descriptor("größe-flat.vmdk", sectors * 512, adapter=adapter, uuid=uuid, thin=thin)
    found = parse_descriptor(data, "x")
    assert (found.capacity, found.parent, found.extents[0].name) == (sectors * 512, None, "größe-flat.vmdk")
    assert found.fields["ddb.uuid"] == "60 00 C2 93 7b a0 3a 03-9f 22 56 c2 9a 48 00 ff"
    assert ("ddb.thinprovisioned" in found.fields) == thin


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="qemu-img is not installed")
@pytest.mark.parametrize("adapter", ["ide", "lsilogic", "buslogic"])
def test_qemu_reads_our_descriptor(tmp_path: Path, adapter: str) -> None:
    (tmp_path / "d-flat.vmdk").write_bytes(b"vmbackup" * (1 << 17))
    (tmp_path / "d.vmdk").write_bytes(render_descriptor("d-flat.vmdk", 1 << 20, adapter=adapter, uuid="", thin=True))
    told = subprocess.run(
        ["qemu-img", "info", "--output=json", "-f", "vmdk", "d.vmdk"], cwd=tmp_path, check=True, capture_output=True
    )
    assert json.loads(told.stdout)["virtual-size"] == 1 << 20
    same = ["qemu-img", "compare", "-f", "vmdk", "-F", "raw", "d.vmdk", "d-flat.vmdk"]
    assert subprocess.run(same, cwd=tmp_path, check=False, capture_output=True).returncode == 0
