"""Streams: events, commands, files, screens; and clients that do not read them well."""

import asyncio
import base64
import hashlib
import json
import socket

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from boincvm.controller import events
from boincvm.errors import UsageError
from support.controller.faces import BEARER, JSON, LIMIT, TOKEN, Faces, bounded

pytestmark = pytest.mark.timeout(90)
PROTOCOLS = [f"boincvm.token.{TOKEN}"]


def socket_of(faces, path, **options):
    return connect(f"ws://127.0.0.1:{faces.port}{path}", **{"subprotocols": PROTOCOLS, **options})


def lines_of(data):
    return [json.loads(line) for line in data.splitlines()]


# Events.


async def test_events_that_there_are_and_those_that_come(faces):
    faces.controller.events.add("trouble", None, "first")
    there = await faces.ask("GET", "/api/events", BEARER)
    assert [event["text"] for event in lines_of(there.body)] == ["first"]
    talk = await faces.talk()
    await talk.ask("GET", "/api/events?after=1&follow=yes", BEARER)
    assert (await talk.head()).headers["content-type"].startswith("application/x-ndjson")
    for text in ("second", "third"):
        faces.controller.events.add("trouble", "g1", text)
        event = json.loads(await talk.chunk())
        assert (event["text"], event["vm"]) == (text, "g1")


@pytest.mark.parametrize("after", ["x", "-1", "1" * 20, "%C2%B2"])
async def test_a_number_that_is_none(faces, after):
    answer = await faces.ask("GET", f"/api/events?after={after}", BEARER)
    assert answer.status == 400
    assert "after" in answer.error["message"]


async def test_events_by_websocket(faces):
    faces.controller.events.add("trouble", None, "first")
    async with socket_of(faces, "/api/events?after=0") as ear:
        assert json.loads(await bounded(ear.recv()))["text"] == "first"
        faces.controller.events.add("trouble", None, "second")
        assert json.loads(await bounded(ear.recv()))["text"] == "second"
        assert ear.subprotocol == PROTOCOLS[0]


async def test_who_never_reads_misses_events_and_is_told_how_many(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "MOST_EVENTS", 200)
    async with Faces.open(tmp_path) as faces:
        await faces.serve_tcp()
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", faces.port))
        talk = await faces.talk_over(*await asyncio.open_connection(sock=deaf, limit=4096))
        await talk.ask("GET", "/api/events?follow=yes", BEARER)
        await talk.head()
        # Ten MB: more than the log keeps, and more than all buffers on the way take.
        last = 5000
        for number in range(last):
            faces.controller.events.add("vm_load", None, "x" * 2000)
            if number % 50 == 0:
                await asyncio.sleep(0)
        assert (await faces.call("version")).status == 200
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        skipped = known = 0
        while known < last:
            table = json.loads(await talk.chunk())
            if "skipped" in table:
                skipped += table["skipped"]
                known += table["skipped"]
            else:
                known += 1
                assert table["number"] == known
        assert skipped > 1000


# Commands.


async def test_output_comes_as_it_is_written_and_the_end_at_last(faces):
    guest = await faces.add_guest("g1")
    reported = (await faces.call("exec", vms="g1", argv=["wait", "hello"], id="a/b c")).result
    assert reported == {"command": "a/b c", "vms": ["g1"]}
    talk = await faces.talk()
    await talk.ask("GET", "/api/commands/a%2Fb%20c/output?follow=yes&from=2", BEARER)
    assert (await talk.head()).status == 200
    piece = json.loads(await talk.chunk())
    assert piece == {"vm": "g1", "stream": "stdout", "offset": 2, "data": encoded(b"llo")}
    guest.programs[0].signal(9)
    end = json.loads(await talk.chunk())["command"]
    assert end["answers"]["g1"]["signal"] == 9
    assert await talk.chunk() == b""
    # As often as one likes.
    again = await faces.ask("GET", "/api/commands/a%2Fb%20c/output", BEARER)
    assert lines_of(again.body)[0]["data"] == encoded(b"hello")


async def test_a_command_and_its_output_in_one_answer(faces):
    guest = await faces.add_guest("g1")
    talk = await faces.talk()
    asked = json.dumps({"vms": "g1", "argv": ["wait", "hello"], "id": "c"}).encode()
    json_body = {**JSON, **BEARER}
    await talk.ask("POST", "/api/exec?follow=yes", json_body, asked)
    assert (await talk.head()).status == 200
    assert json.loads(await talk.chunk()) == {"result": {"command": "c", "vms": ["g1"]}}
    assert json.loads(await talk.chunk())["data"] == encoded(b"hello")
    guest.programs[0].signal(9)
    assert json.loads(await talk.chunk())["command"]["answers"]["g1"]["signal"] == 9
    assert await talk.chunk() == b""
    # Nobody to run it is told at once.
    asked = json.dumps({"vms": "g2", "argv": ["x"]}).encode()
    answer = await faces.ask("POST", "/api/exec?follow=yes", json_body, asked)
    assert answer.status == 400
    assert "matches no" in answer.error["message"]


async def test_a_command_that_there_is_not(faces):
    for method, path in (("GET", "output"), ("POST", "input")):
        answer = await faces.ask(method, f"/api/commands/x/{path}", BEARER)
        assert answer.status == 400
        assert "no command 'x'" in answer.error["message"]


async def test_input_goes_to_a_program_that_runs(faces):
    await faces.add_guest("g1")
    reported = await faces.call("exec", vms="g1", argv=["cat"], keep_input=True, id="c")
    assert reported.status == 200
    for body, ends in ((b"one ", "no"), (b"two", "yes")):
        answer = await faces.ask("POST", f"/api/commands/c/input?ends={ends}", BEARER, body)
        assert answer.result == {}
    output = await faces.ask("GET", "/api/commands/c/output?follow=yes", BEARER)
    pieces = [base64.b64decode(one["data"]) for one in lines_of(output.body)[:-1]]
    assert b"".join(pieces) == b"one two"


def encoded(data):
    return base64.b64encode(data).decode()


# Files.


async def test_a_file_goes_there_and_comes_back(faces):
    guest = await faces.add_guest("g1")
    data = bytes(range(256)) * 2000
    where = "/api/files?vms=g1&path=in/it&mode=640"
    reported = (await faces.ask("PUT", where, BEARER, data)).result["outcomes"]
    assert reported == {"g1": {"state": "put", "size": len(data)}}
    assert (guest.file_root.root / "in/it").read_bytes() == data
    back = await faces.ask("GET", "/api/files?vm=g1&path=in/it", BEARER)
    assert (back.status, back.body) == (200, data)
    assert (back.headers["x-boincvm-kind"], back.headers["x-boincvm-mode"]) == ("file", "640")
    assert back.headers["content-length"] == str(len(data))
    head = await faces.talk()
    await head.ask("HEAD", "/api/files?vm=g1&path=in/it", BEARER)
    assert (await head.head()).headers["content-length"] == str(len(data))


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("vms=g1&path=../x", 400),
        ("vms=g1&path=x&kind=dog", 400),
        ("vms=g1&path=x&mode=999", 400),
        ("vms=g1&path=x&mode=7777", 400),
        ("vms=nobody&path=x", 400),
        ("path=x", 400),
    ],
)
async def test_a_file_that_may_not_be_put(faces, query, status):
    await faces.add_guest("g1")
    answer = await faces.ask("PUT", f"/api/files?{query}", BEARER, b"x")
    assert answer.status == status
    assert answer.error["message"]


async def test_a_file_that_is_not_there(faces):
    await faces.add_guest("g1")
    answer = await faces.ask("GET", "/api/files?vm=g1&path=none", BEARER)
    assert answer.status == 422
    assert "no none" in answer.error["message"]


async def test_a_client_that_goes_in_the_middle_of_its_file(faces, caplog):
    guest = await faces.add_guest("g1")
    talk = await faces.talk()
    await talk.ask("PUT", "/api/files?vms=g1&path=x", {**BEARER, "Content-Length": "9"}, b"half")
    await talk.close()
    assert (await faces.call("version")).status == 200
    assert not (guest.file_root.root / "x").exists()
    assert caplog.records == []


async def test_what_came_wrong_is_not_a_whole_file(faces):
    guest = await faces.add_guest("g1")
    (guest.file_root.root / "x").write_bytes(b"the content")
    begin = guest.files.verbs["file-get-begin"]

    async def lie(table, data):
        reply = await begin(table, data)
        if "digest" not in reply.table:
            return reply
        return reply._replace(
            table={**reply.table, "digest": hashlib.blake2b(b"", digest_size=32).hexdigest()}
        )

    guest.verbs_now["file-get-begin"] = lie
    talk = await faces.talk()
    await talk.ask("GET", "/api/files?vm=g1&path=x", BEARER)
    assert (await talk.head()).headers["content-length"] == "11"
    async with asyncio.timeout(LIMIT):
        assert len(await talk.reader.read()) < 11


# Screens.


@pytest.fixture
async def screen(faces, tmp_path, monkeypatch):
    """Serve a screen that sends back what it receives."""
    ends = []

    async def serve(reader, writer):
        writer.write(b"RFB 003.008\n")
        while data := await reader.read(1000):
            writer.write(data)
        ends.append("closed")
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "vnc")

    async def console(vm):
        if vm != "g1":
            raise UsageError("it has no screen here: ä" * 20)
        return await asyncio.open_unix_connection(tmp_path / "vnc")

    monkeypatch.setattr(faces.controller, "console", console)
    yield ends
    server.close()


async def test_a_screen(faces, screen):
    async with socket_of(faces, "/api/console/g1", subprotocols=["binary", *PROTOCOLS]) as tube:
        assert tube.subprotocol == "binary"
        assert await bounded(tube.recv()) == b"RFB 003.008\n"
        await tube.send(b"keys")
        assert await bounded(tube.recv()) == b"keys"
        await tube.send("text is nothing")
        await tube.send(b"more")
        assert await bounded(tube.recv()) == b"more"


async def test_a_screen_that_there_is_not(faces, screen):
    async with socket_of(faces, "/api/console/g2") as tube:
        with pytest.raises(ConnectionClosed) as caught:
            await bounded(tube.recv())
    assert caught.value.rcvd.code == 4404
    assert "no screen" in caught.value.rcvd.reason


async def say_and_hear(tube, data):
    await tube.send(data)
    return await tube.recv()


async def test_a_message_that_is_too_large_ends_the_socket(faces, screen):
    async with socket_of(faces, "/api/console/g1") as tube:
        assert await bounded(tube.recv()) == b"RFB 003.008\n"
        with pytest.raises(ConnectionClosed) as caught:
            await bounded(say_and_hear(tube, b"x" * (1 << 21)))
    assert caught.value.rcvd.code == 1009
    assert (await faces.call("version")).status == 200


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/list", "/RPC2", "/novnc/x", "/api/console/a/b"]
)
async def test_a_socket_to_nowhere(faces, path, caplog):
    with pytest.raises(InvalidStatus) as caught:
        async with socket_of(faces, path):
            pass
    assert caught.value.response.status_code == 403
    assert caplog.records == []
