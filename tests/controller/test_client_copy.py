"""Copies continue after the server was away, and only right data is accepted."""

import asyncio
import io
import os
from contextlib import contextmanager

import pytest

from boincvm.client import copy as client_copy
from boincvm.client.address import ControllerAddress
from boincvm.client.client import Client
from boincvm.errors import ControllerAwayError, OutputFileError
from support.controller.faces import Faces

pytestmark = pytest.mark.timeout(60)
SIZE = 12 << 20
BREAK = 4 << 20


@pytest.fixture
async def faces(tmp_path, monkeypatch):
    monkeypatch.setattr(client_copy, "WAITS", (0.0, 0.0, 0.0))
    async with Faces.open(tmp_path) as made:
        await made.add_guest("g1")
        yield made


class Breaking:
    """A client whose server goes away once, after a number of bytes, and returns."""

    def __init__(self, faces, server):
        self.loop = asyncio.get_running_loop()
        self.client = Client(ControllerAddress(faces.socket))
        self.begins = []
        self.transfers = set()
        self._faces, self._server = faces, server
        self._get, self._put = self.client.get, self.client.put
        self.client.get, self.client.put = self.get, self.put

    @contextmanager
    def get(self, vm, path, *, transfer, begin):
        self.begins.append(begin)
        self.transfers.add(transfer)
        with self._get(vm, path, transfer=transfer, begin=begin) as gotten:
            yield gotten

    def put(self, *given, transfer, **more):
        self.begins.append(0)
        self.transfers.add(transfer)
        return self._put(*given, transfer=transfer, **more)

    def progress(self, done, size):
        assert done <= size == SIZE
        if self._server is not None and done > BREAK:
            asyncio.run_coroutine_threadsafe(self._restart(), self.loop).result(20)

    async def _restart(self):
        server, self._server = self._server, None
        await server.close()
        await self._faces.serve_unix()


async def test_a_get_goes_on_where_it_broke_off(faces):
    breaking = Breaking(faces, await faces.serve_unix())
    data = os.urandom(SIZE)
    (faces.guests["g1"].file_root.root / "large").write_bytes(data)
    file = io.BytesIO()
    fetched = asyncio.to_thread(
        client_copy.fetch, breaking.client, "g1", "large", file, breaking.progress
    )
    gotten = await fetched
    assert file.getvalue() == data
    assert (gotten.is_tree, gotten.mode) == (False, 0o644)
    assert len(breaking.begins) == 2
    assert breaking.begins[0] == 0
    assert BREAK < breaking.begins[1] < SIZE
    assert len(breaking.transfers) == 1


async def test_a_put_goes_on_under_its_own_id(faces):
    breaking = Breaking(faces, await faces.serve_unix())
    data = os.urandom(SIZE)
    how = {"is_tree": False, "mode": 0o600, "progress": breaking.progress}
    reported = await asyncio.to_thread(
        client_copy.put, breaking.client, "g1", "in/it", io.BytesIO(data), SIZE, **how
    )
    assert reported["outcomes"]["g1"] == {"state": "put", "size": SIZE}
    assert (faces.guests["g1"].file_root.root / "in/it").read_bytes() == data
    assert len(breaking.begins) == 2
    assert len(breaking.transfers) == 1


async def test_what_came_must_be_what_was_there(faces):
    await faces.serve_unix()
    client = Client(ControllerAddress(faces.socket))
    (faces.guests["g1"].file_root.root / "f").write_bytes(b"x" * 100)
    file = io.BytesIO(b"other")
    file.seek(5)
    with pytest.raises(OutputFileError, match="differs from what was sent"):
        await asyncio.to_thread(client_copy.fetch, client, "g1", "f", file, lambda *_: None)


async def test_no_controller_is_reported_at_once(tmp_path):
    client = Client(ControllerAddress(tmp_path / "http.sock"))
    with pytest.raises(ControllerAwayError, match="no controller is running"):
        client_copy.fetch(client, "g1", "f", io.BytesIO(), lambda *_: None)


async def test_one_that_stays_away_is_reported_in_the_end(faces):
    breaking = Breaking(faces, await faces.serve_unix())
    breaking._restart = breaking._server.close
    (faces.guests["g1"].file_root.root / "large").write_bytes(bytes(SIZE))
    with pytest.raises(ControllerAwayError, match="no controller is running"):
        await asyncio.to_thread(
            client_copy.fetch, breaking.client, "g1", "large", io.BytesIO(), breaking.progress
        )


async def test_a_byte_that_there_is_not(faces):
    await faces.serve_unix()
    (faces.guests["g1"].file_root.root / "f").write_bytes(b"x")
    answer = await faces.ask("GET", "/api/files?vm=g1&path=f&from=2")
    assert (answer.status, "no byte 2" in answer.error["message"]) == (400, True)
    answer = await faces.ask("GET", "/api/files?vm=g1&path=f&from=-1")
    assert answer.status == 400
