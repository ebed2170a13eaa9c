"""XML-RPC as an attacker uses it: a fault or an error, soon, and the controller goes on."""

import asyncio
import time
import xmlrpc.client

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boincvm import __version__
from boincvm.controller.serve.xml_rpc import MOST_BYTES, read_call
from boincvm.errors import UsageError
from support.controller.faces import BEARER
from support.controller.xml_rpc_client import XmlRpcClient

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def old(faces):
    return XmlRpcClient(faces)


BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;">]>
<methodCall><methodName>ping</methodName><params><param><value>&d;</value></param></params></methodCall>"""
FILE = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<methodCall><methodName>&a;</methodName></methodCall>"""
CALL = xmlrpc.client.dumps((), "version").encode()


@pytest.mark.parametrize(
    "body",
    [
        BOMB,
        BOMB.replace(b"DOCTYPE", b"doctype"),
        FILE,
        BOMB.decode().encode("utf-16"),
        BOMB.decode().encode("utf-16-be"),
        b'<?xml version="1.0" encoding="utf-7"?>' + CALL,
        b'<?xml version="1.0" encoding="cp037"?>' + BOMB.decode().encode("cp037"),
        b"",
        b"<",
        b"{}",
        b"<methodCall/>",
        b"<methodCall><methodName/></methodCall>",
        b"<methodCall><methodName>version</methodName>",
        b"<methodResponse><fault><value>x</value></fault></methodResponse>",
        b"<value><array><data></data></array></value>",
        (
            b"<methodCall><methodName>x</methodName><params><param><value><int>x</int></value></param>"
            b"</params></methodCall>"
        ),
        b"<methodCall><methodName>x</methodName><params><param><value><i4>"
        + b"9" * 100_000
        + b"</i4></value></param></params></methodCall>",
        (
            b"<methodCall><params><param><value><struct><member><value>x</value></member></struct>"
            b"</value></param></params></methodCall>"
        ),
        b"<methodCall>" + b"<value><array><data>" * 40_000,
        b"<methodCall><params>" + b"<param/>" * 100_000 + b"</params></methodCall>",
        b"<a>" * 300_000,
        b"\x00" * 100,
        b"\xff\xfe\x00",
    ],
)
async def test_a_hostile_body_is_a_fault_and_soon(faces, old, body, caplog):
    begun = time.process_time()  # the server is in this process; others may keep it waiting
    answer = await faces.ask("POST", "/RPC2", BEARER, body)
    assert time.process_time() - begun < 2
    assert answer.status == 200
    with pytest.raises(xmlrpc.client.Fault):
        xmlrpc.client.loads(answer.body)
    assert await old("version") == __version__
    assert caplog.records == []


async def test_a_body_that_is_too_large(faces, old):
    answer = await faces.ask("POST", "/RPC2", {**BEARER, "Content-Length": str(MOST_BYTES + 1)})
    assert answer.status == 413
    assert (await faces.ask("GET", "/RPC2", BEARER)).status != 200
    assert await old("version") == __version__


async def test_a_bug_is_not_reported(faces, old, monkeypatch, caplog):
    def broken(_selector):
        raise ZeroDivisionError("the secret of the house")

    monkeypatch.setattr(faces.controller.overview, "vms", broken)
    assert "secret" not in await old.fault("listVMs")
    assert caplog.records[0].exc_info[0] is ZeroDivisionError


async def test_a_wrong_token_is_no_fault_but_an_error_of_http(faces):
    def call():
        with xmlrpc.client.ServerProxy(f"http://x:y@127.0.0.1:{faces.port}/RPC2") as proxy:
            return proxy.version()

    with pytest.raises(xmlrpc.client.ProtocolError) as caught:
        await asyncio.to_thread(call)
    assert caught.value.errcode == 401


@settings(max_examples=300)
@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from(CALL.split(b">")), max_size=30).map(b">".join)
)
def test_no_body_is_more_than_a_fault(data):
    try:
        read_call(data)
    except UsageError:
        pass
