# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logging in, staying logged in, and finding the VM that is meant."""

from __future__ import annotations

import socket
import time
from dataclasses import replace

import pytest

from ansible_collections.vmbackup.esx.plugins.module_utils.core.errors import VmbackupError
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.lookup import VmSelector, datacenter_of, find_vm
from ansible_collections.vmbackup.esx.plugins.module_utils.vsphere.session import Session
from tests.integration.vsphere.given import as_user, connection


@pytest.fixture(autouse=True)
def no_trust_from_outside(monkeypatch):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.setenv(name, "x")  # so that whatever the session sets is undone after the test
        monkeypatch.delenv(name)


def refusal(act):
    with pytest.raises(VmbackupError) as refused:
        act()
    return refused.value


def test_a_wrong_password_is_named_without_showing_it(site):
    error = refusal(lambda: Session.open(replace(connection(site), password="not-the-password")))
    assert error.code == "esx_login"
    assert site.user in error.message
    assert "not-the-password" not in str(error)
    assert site.password not in repr(connection(site))


def test_a_certificate_that_is_not_trusted_is_named(site):
    error = refusal(lambda: Session.open(replace(connection(site), validate_certs=True)))
    assert error.code == "esx_certificate"
    assert "validate_certs" in error.hint
    assert "REQUESTS_CA_BUNDLE" in error.hint


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_ca_that_the_environment_names_is_trusted(site, monkeypatch, variable):
    monkeypatch.setenv(variable, site.cert)
    with Session.open(replace(connection(site), validate_certs=True)) as session:
        assert session.is_vcenter == (site.model == "vpx")


def test_validate_certs_false_beats_the_environment(site, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    Session.open(connection(site)).close()


def test_a_host_that_does_not_answer_is_named():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    error = refusal(lambda: Session.open(replace(nowhere(), port=port)))
    assert error.code == "esx_unreachable"
    assert str(port) in error.message


def nowhere():
    from tests.integration.vsphere.given import Connection

    return Connection("127.0.0.1", "root", "secret", 1, False)


def test_a_missing_privilege_is_named_with_its_object(machine):
    with Session.open(as_user(machine.site, "reader", "CreateSnapshot_Task")) as session:
        theirs = machine.seen_by(session)
        what = "taking a snapshot of VM " + session.title(theirs)
        error = refusal(
            lambda: session.ask(what, lambda: theirs.CreateSnapshot_Task(name="x", memory=False, quiesce=False))
        )
    assert error.code == "esx_permission"
    assert "VirtualMachine.CreateSnapshot" in error.message
    assert theirs._moId in error.message
    assert machine.name in error.message


def test_an_ended_session_is_opened_again_once(machine):
    session, before = machine.session, machine.session.cookie()
    machine.control.expire_sessions()
    assert session.ask("reading", lambda: machine.vm_obj.name) == machine.name
    assert session.cookie() != before
    assert session.cookie().startswith("vmware_soap_session=")
    assert ";" not in session.cookie()


def test_a_password_that_was_changed_meanwhile_is_an_error_and_no_loop(machine):
    with Session.open(as_user(machine.site, "changing")) as session:
        theirs = machine.seen_by(session)
        machine.control.user("changing", "another")
        machine.control.expire_sessions()
        assert refusal(lambda: session.ask("reading", lambda: theirs.name)).code == "esx_login"


def test_keeping_alive_keeps_the_session(machine):
    machine.control.settings(idle_timeout_s=0.6)
    before = machine.session.cookie()
    with machine.session.keep_alive(0.1):
        time.sleep(1.2)
        machine.session.ask("reading", lambda: machine.vm_obj.name)
    assert machine.session.cookie() == before


def test_a_reading_call_survives_a_broken_connection(machine):
    machine.control.fault("drop", method="CurrentTime", count=1)
    assert machine.session.now().tzinfo is not None


def test_a_writing_call_is_never_repeated(machine):
    machine.fault("lost", method="CreateSnapshot_Task", count=1)
    error = refusal(
        lambda: machine.session.ask(
            "writing", lambda: machine.vm_obj.CreateSnapshot_Task(name="x", memory=False, quiesce=False)
        )
    )
    assert error.code == "esx_unreachable"
    time.sleep(0.5)
    assert machine.names() == ["x"]


def test_now_is_the_servers_clock(machine):
    before = machine.session.now()
    machine.control.settings(clock_offset_s=7200)
    assert 7000 < (machine.session.now() - before).total_seconds() < 7400


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("web 01", "web 01"),
        ('o\'brien "x" & <y>', 'o\'brien "x" & <y>'),
        ("prod%2fdb", "prod/db"),
        ("prod%2fdc", "prod%2fdc"),
        ("50%25 off", "50% off"),
        ("B\u00fccher-\u65e5\u672c", "B\u00fccher-\u65e5\u672c"),
        ("Caf\u00e9", "Cafe\u0301"),
    ],
)
def test_names_are_found_as_people_write_them(make_machine, stored, asked):
    machine = make_machine(name=stored, directory="odd" + str(abs(hash(stored))))
    assert find_vm(machine.session, VmSelector(asked))._moId == machine.vm_obj._moId


def test_no_such_vm_names_what_is_like_it(machine):
    error = refusal(lambda: find_vm(machine.session, VmSelector(machine.name + "x")))
    assert error.code == "vm_not_found"
    assert machine.name in error.message


@pytest.mark.parametrize("selector", [VmSelector("x", uuid="no-such"), VmSelector("x", moid="vm-99999")])
def test_no_such_uuid_or_id(session, selector):
    assert refusal(lambda: find_vm(session, selector)).code == "vm_not_found"


def test_two_of_one_name_are_listed_and_told_apart(make_machine):
    first, second = make_machine(name="twin", directory="twin-a"), make_machine(name="twin", directory="twin-b")
    error = refusal(lambda: find_vm(first.session, VmSelector("twin")))
    assert error.code == "vm_ambiguous"
    assert "vm_uuid" in error.hint
    for each in (first, second):
        uuid = each.vm_obj.config.instanceUuid
        assert uuid in error.message
        assert find_vm(first.session, VmSelector("twin", uuid=uuid.upper()))._moId == each.vm_obj._moId


def test_a_folder_tells_two_of_one_name_apart(make_machine, site):
    if site.model == "esx":
        pytest.skip("a lone ESX host has one folder for VMs")
    first = make_machine(name="double", directory="double-a", folder="prod/web")
    make_machine(name="double", directory="double-b", folder="test/web")
    error = refusal(lambda: find_vm(first.session, VmSelector("double")))
    assert "/vm/prod/web/double" in error.message
    assert "/vm/test/web/double" in error.message
    for folder in ("prod/web", "/{}/vm/prod/web".format(site.datacenter)):
        assert find_vm(first.session, VmSelector("double", folder=folder))._moId == first.vm_obj._moId
    assert refusal(lambda: find_vm(first.session, VmSelector("double", folder="web"))).code == "vm_ambiguous"
    assert refusal(lambda: find_vm(first.session, VmSelector("double", folder="od/web"))).code == "vm_not_found"


def test_the_datacenter_of_a_vm_is_found(machine, site):
    assert datacenter_of(machine.vm_obj).name == site.datacenter
