"""Who is let in, and who is not."""

import asyncio
import base64
import os
import socket
import ssl
import stat
import subprocess
import sys

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from boincvm.controller.serve import auth, check_extra
from boincvm.controller.serve.auth import Policy, token_in
from boincvm.controller.serve.server import ListenAddress
from boincvm.errors import HostError
from support.certificates import Authority
from support.controller.faces import BEARER, LIMIT, TOKEN, Faces, Talk, bounded

pytestmark = pytest.mark.timeout(60)
NOBODY = 65534


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


# Tokens.


@pytest.mark.parametrize("headers", [BEARER, basic("x", TOKEN), basic("", TOKEN)])
async def test_the_token_opens(faces, headers):
    assert (await faces.ask("POST", "/api/version", headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Token {TOKEN}"},
        {"Authorization": "Bearer \xe4\xf6"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic \xe4"},
        {"Authorization": "Basic /w=="},
        basic(TOKEN, ""),
        basic(TOKEN, "x"),
        {"Cookie": f"token={TOKEN}"},
        {"X-Forwarded-For": "127.0.0.1"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/version"),
        ("GET", "/api/openapi.json"),
        ("GET", "/api/events?follow=yes"),
        ("PUT", "/api/files?vms=all&path=x"),
        ("GET", "/api/none"),
        ("GET", "/metrics"),
        ("POST", "/RPC2"),
        ("POST", "/"),
    ],
)
async def test_without_it_there_is_nothing(faces, headers, method, path):
    answer = await faces.ask(method, path, headers)
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "token" in answer.error["message"]


async def test_the_token_is_not_taken_from_the_address(faces):
    assert (await faces.ask("POST", f"/api/version?token={TOKEN}")).status == 401


async def test_tokens_are_compared_in_constant_time(faces, monkeypatch):
    compared = []

    def compare(one, other):
        compared.append((one, other))
        return False

    monkeypatch.setattr(auth.hmac, "compare_digest", compare)
    assert (await faces.ask("POST", "/api/version", BEARER)).status == 401
    assert compared == [(TOKEN.encode(), TOKEN.encode())]


async def test_no_token_is_not_an_empty_one(tmp_path):
    async with Faces.open(tmp_path) as faces:
        await faces.serve(ListenAddress(), Policy())
        for headers in ({}, {"Authorization": "Bearer "}, basic("x", "")):
            assert (await faces.ask("POST", "/api/version", headers)).status == 401


async def test_the_page_is_for_everybody_and_tells_nothing(faces):
    for path in ("/", "/index.html"):
        page = await faces.ask("GET", path)
        assert page.status == 200
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["cache-control"] == "no-cache"
    rules = dict(
        rule.strip().split(" ", 1) for rule in page.headers["content-security-policy"].split(";")
    )
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert rules["script-src"] == "'self'"
    assert rules["connect-src"] == "'self' ws://localhost wss://localhost"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in page.headers


def test_a_token_is_made_once_and_for_its_owner_alone(tmp_path):
    token = token_in(tmp_path / "token")
    assert len(token) > 40
    assert token_in(tmp_path / "token") == token
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    (tmp_path / "token").write_text("")
    assert len(token_in(tmp_path / "token")) > 40


# Where a request is addressed to, and where it comes from.


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:80", "192.168.1.1:8080"]
)
async def test_a_request_to_this_host(faces, host):
    assert (await faces.ask("POST", "/api/version", {**BEARER, "Host": host})).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost:1/x?y",
        "localhost:1/x#",
        "evil.example#localhost",
        "x@localhost",
        "localhost:123456",
        "localhost evil",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/api/version", "/RPC2"])
async def test_a_request_to_another_name_is_refused(faces, host, path):
    """The owner of a name can make it resolve to this host, so that the browser takes its pages for
    ours."""
    answer = await faces.ask("POST", path, {**BEARER, "Host": host})
    assert answer.status == 421


async def test_a_strange_host_opens_nothing(tmp_path):
    """A path taken from an address that includes the host would be a different one."""
    async with Faces.open(tmp_path) as faces:
        await faces.serve(ListenAddress(), Policy(token=TOKEN, hosts=()))
        for host in ("localhost:1/x?y", "localhost/?", "a#b", "localhost:1/\\"):
            for path in ("/api/version", "/api/openapi.json"):
                for method in ("POST", "GET"):
                    assert (await faces.ask(method, path, {"Host": host})).status in (401, 421)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://[", "http://localhost:9"]
)
async def test_pages_of_others_may_ask_nothing(faces, origin):
    answer = await faces.ask("POST", "/api/version", {**BEARER, "Origin": origin})
    assert answer.status == 403
    with pytest.raises(InvalidStatus) as caught:
        async with connect(
            f"ws://127.0.0.1:{faces.port}/api/events",
            origin=origin,
            subprotocols=[f"boincvm.token.{TOKEN}"],
        ):
            pass
    assert caught.value.response.status_code == 403


async def test_our_own_page_may(faces):
    own = f"http://127.0.0.1:{faces.port}"
    host = {"Host": f"127.0.0.1:{faces.port}", "Origin": own}
    assert (await faces.ask("POST", "/api/version", {**BEARER, **host})).status == 200
    protocols = ["boincvm.token.wrong", f"boincvm.token.{TOKEN}"]
    url = f"ws://127.0.0.1:{faces.port}/api/events"
    async with connect(url, origin=own, subprotocols=protocols):
        pass


OURS, EVIL = "http://localhost", "https://evil.example"
SUB = f"boincvm.token.{TOKEN}"


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([f"Origin: {OURS}"], 200),
        (["Origin: HTTP://LOCALHOST"], 200),
        (["Origin: https://localhost"], 403),
        (["Origin: ftp://localhost"], 403),
        (["Origin: //localhost"], 403),
        (["Origin: http://localhost:80"], 403),
        (["Origin: http://localhost:0"], 403),
        (["Origin: http://localhost/"], 403),
        (["Origin: http://localhost@evil.example"], 403),
        (["Origin: http://x@localhost"], 403),
        (["Origin: http://localhost.evil.example"], 403),
        (["Origin: null"], 403),
        (["Origin:"], 403),
        ([f"Origin: {OURS}, {OURS}"], 403),
        ([f"Origin: {OURS} {EVIL}"], 403),
        ([f"Origin: {OURS}", f"Origin: {EVIL}"], 403),
        ([f"Origin: {EVIL}", f"Origin: {OURS}"], 403),
        ([f"Origin: {OURS}", f"Origin: {OURS}"], 403),
        (["Host: evil.example"], 400),
        (["Host: localhost"], 400),
        (["host: 127.0.0.1", f"Origin: {OURS}"], 400),
    ],
)
@pytest.mark.parametrize("path", ["/api/version", "/RPC2"])
async def test_each_origin_and_host_that_is_named_counts(faces, path, lines, status):
    body = b"{}" if path == "/api/version" else b""
    if path == "/RPC2":
        body = b"<methodCall><methodName>listVMs</methodName><params/></methodCall>"
    kind = "application/json" if path == "/api/version" else "text/xml"
    head = [f"POST {path} HTTP/1.1", "Host: localhost", *lines, f"Content-Type: {kind}"]
    head += [f"Authorization: {BEARER['Authorization']}", f"Content-Length: {len(body)}", "", ""]
    talk = await faces.talk()
    await talk.send("\r\n".join(head).encode() + body)
    assert (await talk.head()).status == status


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([f"Origin: {OURS}"], 101),
        (["Origin: https://localhost"], 403),
        (["Origin: null"], 403),
        ([f"Origin: {OURS}", f"Origin: {EVIL}"], 400),
        ([f"Origin: {EVIL}", f"Origin: {OURS}"], 400),
        (["Host: evil.example", f"Origin: {OURS}"], 400),
    ],
)
async def test_so_they_do_for_a_websocket(faces, lines, status):
    head = ["GET /api/events HTTP/1.1", "Host: localhost", *lines, "Upgrade: websocket"]
    head += ["Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    head += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", f"Sec-WebSocket-Protocol: {SUB}"]
    talk = await faces.talk()
    await talk.send("\r\n".join([*head, "", ""]).encode())
    assert (await talk.head()).status == status


@pytest.mark.parametrize("protocols", [None, ["binary"], ["boincvm.token.wrong"]])
async def test_a_websocket_needs_the_token_too(faces, protocols):
    for path in ("/api/events", "/api/console/g1"):
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"ws://127.0.0.1:{faces.port}{path}", subprotocols=protocols):
                pass
        assert caught.value.response.status_code == 403


# The UNIX socket.


async def test_the_socket_is_its_owner_s_alone(tmp_path):
    async with Faces.open(tmp_path) as faces:
        server = await faces.serve_unix()
        assert stat.S_IMODE(faces.socket.stat().st_mode) == 0o600
        assert (await faces.ask("POST", "/api/version")).status == 200
        await server.close()
        assert not faces.socket.exists()


async def test_a_socket_at_a_long_path(tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    async with Faces.open(tmp_path) as faces:
        await faces.serve(ListenAddress(deep / "http.sock"), Policy(trusts_all=True))
        assert (deep / "http.sock").is_socket()


_STRANGER = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
link = socket.socket(socket.AF_UNIX)
link.settimeout(20)
link.connect(sys.argv[1])
try:
    link.sendall(b"POST /api/version HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\n\\r\\n")
    told = link.recv(1000)
except (BrokenPipeError, ConnectionResetError):
    told = b""
sys.exit(3 if told == b"" else 4)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_another_user_s_process_is_closed_unheard(tmp_path):
    async with Faces.open(tmp_path) as faces:
        await faces.serve_unix()
        # Somebody has loosened all permissions.
        faces.socket.chmod(0o777)
        for directory in (tmp_path, *tmp_path.parents[:3]):
            if directory.stat().st_uid == os.geteuid() and directory.name:
                directory.chmod(directory.stat().st_mode | 0o011)
        command = [sys.executable, "-c", _STRANGER, str(faces.socket)]
        done = await asyncio.to_thread(subprocess.run, command, timeout=LIMIT, capture_output=True)
        assert done.returncode == 3, done.stderr
        assert (await faces.ask("POST", "/api/version")).status == 200


# TLS.


@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    return Authority(directory, "ours"), Authority(directory, "theirs")


@pytest.fixture
async def secure(tmp_path, authorities):
    ours, _ = authorities
    server = ours.sign("server")
    async with Faces.open(tmp_path) as made:
        await made.serve_tcp(
            certificate=server.certificate,
            key=server.key,
            client_authority=ours.pair.certificate,
        )
        yield made


async def ask_securely(faces, authority, pair=None, headers=BEARER):
    context = ssl.create_default_context(cafile=authority.pair.certificate)
    if pair is not None:
        context.load_cert_chain(*pair)
    opened = await asyncio.open_connection("127.0.0.1", faces.port, ssl=context)
    talk = await faces.talk_over(*opened)
    await talk.ask("POST", "/api/version", headers)
    return await talk.answer()


async def test_a_certificate_of_ours_opens_without_a_token(secure, authorities):
    ours, _ = authorities
    answer = await ask_securely(secure, ours, ours.sign("client"), headers={})
    assert answer.status == 200


async def test_without_a_certificate_the_token_is_needed(secure, authorities):
    ours, _ = authorities
    assert (await ask_securely(secure, ours)).status == 200
    assert (await ask_securely(secure, ours, headers={})).status == 401


async def test_a_certificate_of_another_authority_ends_it(secure, authorities):
    ours, theirs = authorities
    with pytest.raises((ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)):
        await ask_securely(secure, ours, theirs.sign("client"))
    assert (await ask_securely(secure, ours)).status == 200


async def test_who_speaks_no_tls_gets_no_answer(secure):
    talk = await secure.talk()
    await talk.ask("POST", "/api/version", BEARER)
    assert b"HTTP" not in await bounded(talk.reader.read())


async def test_a_websocket_with_a_certificate(secure, authorities):
    ours, _ = authorities
    context = ssl.create_default_context(cafile=ours.pair.certificate)
    context.load_cert_chain(*ours.sign("client"))
    async with connect(f"wss://127.0.0.1:{secure.port}/api/events", ssl=context) as ear:
        secure.controller.events.add("trouble", None, "it")
        assert "it" in await bounded(ear.recv())


# What cannot be.


async def test_an_address_that_is_taken(faces, tmp_path):
    with pytest.raises(HostError, match="cannot listen") as caught:
        await faces.serve(ListenAddress(port=faces.port), Policy(token=TOKEN))
    assert "free" in caught.value.hint


async def test_certificates_that_are_none(faces, tmp_path):
    (tmp_path / "none.pem").write_text("none")
    for name in ("none.pem", "missing.pem"):
        with pytest.raises(HostError, match="cannot listen"):
            await faces.serve(ListenAddress(certificate=str(tmp_path / name)), Policy(token=TOKEN))


def test_without_the_packages_it_says_which_to_install(monkeypatch):
    check_extra()
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(HostError, match="starlette") as caught:
        check_extra()
    assert "pip install 'boincvm[controller]'" in caught.value.hint


async def test_ipv6(tmp_path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this host has no IPv6")
    async with Faces.open(tmp_path) as faces:
        await faces.serve(ListenAddress(host="::1"), Policy(token=TOKEN))
        talk: Talk = await faces.talk_over(*await asyncio.open_connection("::1", faces.port))
        await talk.ask("POST", "/api/version", {**BEARER, "Host": f"[::1]:{faces.port}"})
        assert (await talk.answer()).status == 200
