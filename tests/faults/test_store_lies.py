# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store that lies, floods or is silent: the mover ends with an error that says so, in time and in bounded memory."""

from __future__ import annotations

import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store import peer_process
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.sender import send_backup
from ansible_collections.vmbackup.esx.plugins.module_utils.core.store.wire_link import WireLink
from tests.integration.staged_backup import noise, stage

from .stores import told

VM = "web01"
# Greets, then obeys the lines that each lie appends. `ask` reads a request with its bytes; `say` answers.
PEER = """
import json, os, sys, time
out = sys.stdout
def say(**answer): out.write(json.dumps(answer) + "\\n"); out.flush()
def ask():
    line = sys.stdin.buffer.readline()
    if not line: sys.exit(0)
    request = json.loads(line)
    sys.stdin.buffer.read(request.get("length", 0))
    return request["verb"]
"""
GREETED = PEER + "say(vmbackup=1)\n"
OBEYED = (
    GREETED
    + """
while True:
    verb = ask()
    if verb == "commit": break
    say(ok=True, state="absent", sizes={})
"""
)
LIES = {
    "more bytes than were sent": (
        GREETED + "ask(); say(ok=True, state='partial', sizes={'archive.tar.gz': 1 << 50})",
        "store_has_more",
    ),
    "sizes that are no numbers": (
        GREETED + "ask(); say(ok=True, state='partial', sizes={'archive.tar.gz': 'x'})",
        "wire_malformed",
    ),
    "a state that is none": (GREETED + "ask(); say(ok=True, state='fine', sizes={})", "wire_malformed"),
    "garbage": (GREETED + "ask(); print('}{', flush=True)", "wire_malformed"),
    "a refusal without a code": (GREETED + "ask(); say(ok=False)", "wire_malformed"),
    "a refusal with a code that is none": (
        GREETED + "ask(); say(ok=False, code='A B', message='', hint='')",
        "wire_malformed",
    ),
    "another protocol": (PEER + "say(vmbackup=99)", "store_protocol_mismatch"),
    "a shell's greeting": (PEER + "print('Welcome to Debian')", "store_receiver_missing"),
    "a flood without an end of line": (GREETED + "ask()\nwhile True: out.write('x' * 65536)", "store_link_lost"),
    "a flood of words": (GREETED + "ask()\nwhile True: os.write(2, b'x' * 65536)", "store_link_lost"),
    "silence": (GREETED + "ask(); sys.stdin.buffer.read()", "store_link_lost"),
    "a letter now and then": (
        GREETED + "ask()\nwhile True: out.write('x'); out.flush(); time.sleep(0.2)",
        "store_link_lost",
    ),
    "a flood of busy": (OBEYED + "while True: say(busy=True)", "wire_malformed"),
    "busy where nothing is to be done": (GREETED + "ask(); say(busy=True)", "wire_malformed"),
    "taking everything and keeping nothing": (OBEYED, "store_link_lost"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_store_that_does_not_keep_to_the_protocol_ends_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    monkeypatch.setattr(peer_process, "_END", 0.5)
    program, code = LIES[lie]
    staged = stage(tmp_path / "staging", VM, noise(1 << 20))
    started = time.monotonic()
    tracemalloc.start()
    try:
        with WireLink([sys.executable, "-c", program], told, silence=3) as link, pytest.raises(VmbackupError) as caught:
            send_backup(link, str(staged), VM, staged.name, retry_for=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code == code
    assert time.monotonic() - started < 30
    assert peak < 12 << 20  # what is under way and one line
    assert staged.is_dir()


def test_what_a_store_says_is_shown_on_one_line_without_commands_to_the_terminal(tmp_path: Path) -> None:
    program = GREETED + "ask(); say(ok=False, code='store_full', message='a\\n\\x1b[2J' + 'b' * 60000, hint='\\ud800')"
    with WireLink([sys.executable, "-c", program], told) as link, pytest.raises(VmbackupError) as caught:
        link.tip(VM)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 2100


def test_a_mover_without_ssh_is_told_so() -> None:
    with WireLink(["/nonexistent/ssh"], told) as link, pytest.raises(VmbackupError) as caught:
        link.tip(VM)
    assert caught.value.code == "store_ssh_missing"
