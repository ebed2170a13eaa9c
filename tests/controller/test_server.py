"""Connections without requests, too many connections, and the server's shutdown."""

import asyncio
import os
import sys
import time

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from boincvm.controller import operations
from boincvm.controller.serve import bodies, connections
from boincvm.controller.serve import server as server_module
from boincvm.controller.serve.auth import Policy
from boincvm.controller.serve.server import ListenAddress, Server
from support.controller.faces import BEARER, JSON, LIMIT, TOKEN, Faces, bounded
from support.host_delays import host_delays, within
from support.on_terminal import on_terminal

pytestmark = pytest.mark.timeout(60)
HEAD = b"POST /api/version HTTP/1.1\r\nHost: localhost\r\n"
WITH_TOKEN = HEAD + f"Authorization: Bearer {TOKEN}\r\n".encode()


async def test_only_a_person_is_shown_the_token(tmp_path):
    command = (sys.executable, "-m", "boincvm.cli.main", "controller", "--listen", "127.0.0.1:0")
    environment = {"BOINCVM_HOME": str(tmp_path / "home")}
    async with on_terminal(*command, environment=environment) as terminal:
        await terminal.until("/#token=")
        terminal.type("\x03")
        assert await terminal.code() == 0
    (token,) = (tmp_path / "home").rglob("token")
    assert token.read_text().strip() in terminal.shown
    # systemd's journal keeps what it reads, and others may read that.
    logged = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **environment}, stderr=asyncio.subprocess.PIPE
    )
    text = ""
    async with asyncio.timeout(30):
        while "web page: http://127.0.0.1:" not in text:
            text += (await logged.stderr.readline()).decode()
        logged.terminate()
        text += (await logged.communicate())[1].decode()
    assert f"/ (it asks for the token in {token})\n" in text
    assert token.read_text().strip() not in text


# Slow ones.


@pytest.mark.parametrize("begun", [b"", b"P", HEAD, b"\r\n" * 100, b"\x16\x03\x01"])
async def test_who_does_not_end_its_request_is_closed(tmp_path, monkeypatch, begun):
    monkeypatch.setattr(connections, "REQUEST_LIMIT", 0.3)
    async with Faces.open(tmp_path) as faces:
        await faces.serve_tcp()
        talk = await faces.talk()
        await talk.send(begun)
        assert await talk.is_closed()


async def test_drops_do_not_keep_a_connection(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_LIMIT", 0.5)
    async with Faces.open(tmp_path) as faces:
        await faces.serve_tcp()
        talk = await faces.talk()

        async def drip():
            await talk.send(HEAD)
            while not talk.writer.is_closing():
                await talk.send(b"X-A: b\r\n")
                await asyncio.sleep(0.05)

        dripping = asyncio.ensure_future(drip())
        assert await talk.is_closed()
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def test_the_second_request_of_a_connection_has_the_same_limit(tmp_path, monkeypatch):
    async with Faces.open(tmp_path) as faces:
        await faces.serve_tcp()
        talk = await faces.talk()
        monkeypatch.setattr(connections, "REQUEST_LIMIT", 0.3)  # the first one is not to be late
        await talk.send(WITH_TOKEN + b"Content-Length: 0\r\n\r\n")
        assert (await talk.answer()).status == 200
        await talk.send(HEAD)
        assert await talk.is_closed()


async def test_the_body_of_a_refused_request_is_not_waited_for(tmp_path, monkeypatch):
    async with Faces.open(tmp_path) as faces:
        await faces.serve_tcp()
        talk = await faces.talk()
        monkeypatch.setattr(connections, "REQUEST_LIMIT", 0.3)
        await talk.ask("POST", "/api/version", {"Content-Length": "1000000"})
        assert (await talk.answer()).status == 401
        await talk.send(b"x")
        assert await talk.is_closed()


async def test_a_body_that_does_not_come(tmp_path, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_LIMIT", 0.3)
    async with Faces.open(tmp_path) as faces:
        await faces.serve_tcp()
        talk = await faces.talk()
        await talk.ask("POST", "/api/version", {**JSON, **BEARER, "Content-Length": "10"}, b"{")
        assert (await talk.answer()).status == 408
        assert await talk.is_closed()


async def test_a_head_that_is_too_long(faces):
    talk = await faces.talk()
    await talk.send(HEAD + b"X-A: " + b"x" * (1 << 18))
    assert (await talk.head()).status in (400, 431)
    assert await talk.is_closed()


# Many.


async def test_strangers_give_way_to_newcomers(faces):
    strangers = [await faces.talk() for _ in range(connections.MOST_STRANGERS)]
    for talk in strangers:
        await talk.send(b"P")
    known = await faces.talk()
    await known.send(WITH_TOKEN + b"Content-Length: 0\r\n\r\n")
    assert (await known.answer()).status == 200
    assert await strangers[0].is_closed()
    # Who is known is not driven out.
    for _ in range(connections.MOST_STRANGERS):
        await (await faces.talk()).send(b"P")
    assert await strangers[-1].is_closed()
    await known.send(WITH_TOKEN + b"Content-Length: 0\r\n\r\n")
    assert (await known.answer()).status == 200


async def test_there_are_only_so_many_known_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "MOST_KNOWN", 3)
    async with Faces.open(tmp_path) as faces:
        await faces.serve_tcp()
        talks = [await faces.talk() for _ in range(4)]
        for talk in talks[:3]:
            await talk.send(WITH_TOKEN + b"Content-Length: 0\r\n\r\n")
            assert (await talk.answer()).status == 200
        await talks[3].send(WITH_TOKEN + b"Content-Length: 0\r\n\r\n")
        assert await talks[3].is_closed()
        await talks[0].close()
        while True:  # until it has seen that
            another = await faces.talk()
            await another.send(WITH_TOKEN + b"Content-Length: 0\r\n\r\n")
            try:
                assert (await another.answer()).status == 200
            except (ConnectionError, asyncio.IncompleteReadError):
                continue
            return


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00" * 100 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET  HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
        WITH_TOKEN + b"Content-Length: x\r\n\r\n",
        WITH_TOKEN + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        WITH_TOKEN + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_nonsense_is_refused(faces, nonsense, caplog):
    talk = await faces.talk()
    await talk.send(nonsense)
    assert (await talk.head()).status in (400, 421)
    assert (await faces.call("version")).status == 200
    assert caplog.records == []


# The end.


@pytest.fixture
def little_grace(monkeypatch):
    """Have servers end soon; it is set up before a server, so it lasts until that has ended."""
    monkeypatch.setattr(server_module, "GRACE", 0.2)


@pytest.fixture
async def watched(tmp_path):
    """Run a server, of which nothing is left afterwards."""
    before = asyncio.all_tasks()
    async with Faces.open(tmp_path) as made:
        yield made
        server = made.server
        with host_delays() as delays:
            begun = time.monotonic()
            await bounded(server.close())
            await server.close()
            took = time.monotonic() - begun
        assert took - delays.seconds < 5
        assert not made.socket.exists()
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        with within(1):
            await asyncio.wait(left, timeout=LIMIT)
    assert not [task for task in left if not task.done()]


async def test_its_end_ends_streams_properly(watched, caplog):
    server = watched.server = await watched.serve_unix()
    await watched.add_guest("g1")
    await watched.call("exec", vms="g1", argv=["wait"], id="c")
    events, output, idle = [await watched.talk() for _ in range(3)]
    await events.ask("GET", "/api/events?follow=yes")
    await output.ask("GET", "/api/commands/c/output?follow=yes")
    await events.head()
    await output.head()
    closing = asyncio.ensure_future(server.close())
    while await events.chunk():
        pass
    while await output.chunk():
        pass
    assert await idle.is_closed()
    await bounded(closing)
    assert caplog.records == []


async def test_its_end_ends_websockets(watched):
    server = watched.server = await watched.serve_tcp()
    url = f"ws://127.0.0.1:{watched.port}/api/events"
    async with connect(url, subprotocols=[f"boincvm.token.{TOKEN}"]) as ear:
        closing = asyncio.ensure_future(server.close())
        with pytest.raises(ConnectionClosed) as caught:
            await bounded(ear.recv())
        assert caught.value.rcvd.code == 1012
        await bounded(closing)


@pytest.mark.usefixtures("little_grace")
async def test_its_end_does_not_wait_for_who_never_reads(watched):
    watched.server = await watched.serve_unix()
    deaf = await watched.talk()
    deaf.writer.transport.pause_reading()
    await deaf.ask("GET", "/api/events?follow=yes")
    for _ in range(2000):
        watched.controller.events.add("vm_load", None, "x" * 2000)
        await asyncio.sleep(0)


async def test_its_end_waits_a_little_for_what_was_asked(watched, monkeypatch):
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(_controller, _given):
        begun.set()
        await go.wait()
        return {"it": "is done"}

    version = operations.OPERATIONS["version"]._replace(run=slow)
    monkeypatch.setitem(operations.OPERATIONS, "version", version)
    server = watched.server = await watched.serve_unix()
    talk = await watched.talk()
    await talk.ask("POST", "/api/version")
    await bounded(begun.wait())
    closing = asyncio.ensure_future(server.close())
    await asyncio.sleep(0)
    go.set()
    assert (await talk.answer()).result == {"it": "is done"}
    await bounded(closing)


@pytest.mark.usefixtures("little_grace")
async def test_its_end_cancels_what_takes_too_long(watched, monkeypatch, caplog):
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(_controller, _given):
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    version = operations.OPERATIONS["version"]._replace(run=endless)
    monkeypatch.setitem(operations.OPERATIONS, "version", version)
    server = watched.server = await watched.serve_unix()
    talk = await watched.talk()
    await talk.ask("POST", "/api/version")
    await bounded(begun.wait())
    await bounded(server.close())
    assert cancelled.is_set()
    assert await talk.is_closed()
    assert caplog.records == []


async def test_a_file_on_its_way_is_cut_off_at_the_end(watched):
    server = watched.server = await watched.serve_unix()
    guest = await watched.add_guest("g1")
    (guest.file_root.root / "x").write_bytes(b"x" * (64 << 20))
    talk = await watched.talk()
    await talk.ask("GET", "/api/files?vm=g1&path=x")
    size = int((await talk.head()).headers["content-length"])
    closing = asyncio.ensure_future(server.close())
    await bounded(closing)
    assert len(await bounded(talk.reader.read())) < size


async def test_nobody_waits_for_anything_while_nothing_happens(faces):
    """No timer fires repeatedly: the server sleeps until a request arrives."""
    loop = asyncio.get_running_loop()
    ours = [one for one in loop._scheduled if "uvicorn" in repr(one) or "serve" in repr(one)]
    assert ours == []


async def test_a_server_that_was_never_opened_closes(tmp_path):
    async with Faces.open(tmp_path) as faces:
        await Server(faces.controller, ListenAddress(), Policy()).close()


async def test_two_servers_of_one_controller(tmp_path):
    async with Faces.open(tmp_path) as faces:
        await faces.serve_unix()
        first = await faces.ask("POST", "/api/version")
        await faces.serve_tcp()
        assert (await faces.call("version")).body == first.body
