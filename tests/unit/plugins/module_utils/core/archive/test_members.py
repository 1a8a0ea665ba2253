# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import gzip
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive import codecs, members
from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError

from .conftest import MIB, noise, text


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=20000))
def test_a_member_is_a_multiple_of_4_kib_and_says_its_length(data):
    member = members.pack_member(codecs.choose_codec(), data)
    head = members.parse_head(member, 0)
    assert len(member) % 4096 == 0
    assert head.length == len(member)
    assert gzip.decompress(member) == data


def test_the_largest_member_stays_within_the_readers_limit(codec):
    assert len(members.pack_member(codec, noise(MIB))) < members.MAX_MEMBER
    assert len(members.ZeroMembers().get(members.ZERO_RUN).member) < members.MAX_MEMBER


@pytest.mark.parametrize("length", [1, 511, MIB - 1, MIB, 3 * MIB, 64 * MIB])
def test_a_prepared_member_of_zeros_is_what_it_says(length):
    prepared = members.ZeroMembers().get(length)
    assert gzip.decompress(prepared.member) == bytes(length)
    assert prepared.digest == hashlib.sha256(bytes(length)).digest()
    assert members.parse_head(prepared.member, 0).flags == members.FLAG_ZERO
    assert len(prepared.member) % 4096 == 0


def test_prepared_members_do_not_depend_on_the_order_in_which_they_are_asked_for():
    one, other = members.ZeroMembers(), members.ZeroMembers()
    other.get(9 * MIB)
    assert one.get(2 * MIB) == other.get(2 * MIB)


def test_the_footer_is_an_empty_gzip_member_of_fixed_size():
    footer = members.Footer(4096, 8192, 1 << 40, 77)
    packed = members.pack_footer(footer)
    assert len(packed) == members.FOOTER_SIZE
    assert gzip.decompress(packed) == b""
    assert members.parse_footer(packed) == footer
    assert members.parse_head(packed, 0).length == len(packed)


def test_a_footer_with_any_flipped_bit_is_refused():
    packed = members.pack_footer(members.Footer(4096, 8192, 1 << 40, 77))
    for bit in range(8 * len(packed)):
        broken = bytearray(packed)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(VmbackupError) as refused:
            members.parse_footer(bytes(broken))
        assert refused.value.code == "archive_index_damaged"


@pytest.mark.parametrize("head", [b"", b"\x1f\x8b\x08\0" + bytes(40), gzip.compress(text(500)), bytes(100)])
def test_what_is_no_member_of_ours_is_refused(head):
    with pytest.raises(VmbackupError) as refused:
        members.parse_head(head, 8192)
    assert refused.value.code == "archive_member_damaged"
    assert "8192" in refused.value.message
