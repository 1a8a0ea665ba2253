# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import zlib

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.archive import codecs
from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError

from .conftest import noise, text


def test_what_is_deflated_inflates_again(codec):
    for data in (b"", b"x", text(1 << 20), noise(1 << 20), bytes(1 << 20)):
        body = b"".join(codecs.deflate(codec, data))
        assert codecs.inflate(body, len(data)) == data
        assert b"".join(codecs.inflate_pieces(body, 1000)) == data
        assert zlib.decompress(body, -15) == data


def test_zlib_stores_what_does_not_compress():
    data = noise(1 << 20)
    body = b"".join(codecs.deflate(codecs.Codec("zlib", 1), data))
    assert data[:60] in body
    assert len(body) < len(data) * 1.001


def test_auto_takes_isal_where_it_is_installed_and_zlib_elsewhere(monkeypatch):
    if codecs._isal is not None:
        assert codecs.choose_codec() == codecs.Codec("isal", 1)
    monkeypatch.setattr(codecs, "_isal", None)
    assert codecs.choose_codec("auto") == codecs.Codec("zlib", 1)
    assert codecs.choose_codec("zlib", 9).level == 9
    with pytest.raises(VmbackupError) as missing:
        codecs.choose_codec("isal")
    assert missing.value.code == "codec_missing"


@pytest.mark.parametrize(
    ("name", "level", "code"),
    [("lzma", None, "codec_unknown"), ("zlib", 0, "codec_level_invalid"), ("zlib", 10, "codec_level_invalid")],
)
def test_a_codec_that_does_not_exist_is_refused(name, level, code):
    with pytest.raises(VmbackupError) as refused:
        codecs.choose_codec(name, level)
    assert refused.value.code == code
    assert refused.value.hint


def test_inflating_stops_at_the_recorded_length():
    bomb = b"".join(codecs.deflate(codecs.Codec("zlib", 9), bytes(64 << 20)))
    for length in (0, 1, 1 << 20):
        with pytest.raises(codecs.BrokenStream):
            codecs.inflate(bomb, length)


def test_a_stream_that_is_cut_or_followed_by_bytes_is_broken():
    body = b"".join(codecs.deflate(codecs.Codec("zlib", 1), text(5000)))
    for broken in (body[:-3], body + b"x", b"", b"\xff" * 50):
        with pytest.raises(codecs.BrokenStream):
            codecs.inflate(broken, 5000)
        with pytest.raises(codecs.BrokenStream):
            list(codecs.inflate_pieces(broken, 1000))
