"""A controller with servers, fake guests, and raw clients."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from boincvm.bus.broker_address import open_bus
from boincvm.bus.client import StompBus
from boincvm.controller.controller import Controller, run_controller
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.program import Request
from boincvm.controller.protocol.report import Report
from boincvm.controller.protocol.requests import Reply
from boincvm.controller.protocol.vm_state import VmState
from boincvm.controller.serve.auth import Policy
from boincvm.controller.serve.server import ListenAddress, Server
from boincvm.node.command import Listener
from boincvm.node.files import NodeFiles
from boincvm.node.node import Node
from boincvm.node.responder import Verb
from support.controller.lossy import FakeProgram
from support.controller.lossy_files import DirectoryFileRoot
from support.raw_connection import LIMIT, RawConnection

TOKEN = "the-token-of-this-test"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
JSON = {"Content-Type": "application/json"}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def result(self) -> Any:
        assert self.status == 200, self.body
        return self.json["result"]

    @property
    def error(self) -> Any:
        assert self.status >= 400, self.body
        return self.json["error"]


class Talk(RawConnection):
    """A raw connection, which can send anything."""

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(LIMIT):
            await self.writer.drain()

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str] = {}, body: bytes = b""
    ) -> None:
        given = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {text}" for name, text in given.items())]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    async def head(self) -> Answer:
        """Return status and headers of the answer."""
        async with asyncio.timeout(LIMIT):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        pairs = (line.partition(": ") for line in lines)
        return Answer(int(first.split()[1]), {name.lower(): text for name, _, text in pairs}, b"")

    async def chunk(self) -> bytes:
        """Return the next chunk of a body; an empty one is its end."""
        async with asyncio.timeout(LIMIT):
            size = int(await self.reader.readline(), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def answer(self) -> Answer:
        head = await self.head()
        if "content-length" in head.headers:
            async with asyncio.timeout(LIMIT):
                body = await self.reader.readexactly(int(head.headers["content-length"]))
        else:
            chunks = []
            while chunk := await self.chunk():
                chunks.append(chunk)
            body = b"".join(chunks)
        return head._replace(body=body)


class FakeGuest:
    """A guest without a machine.

    Its programs are FakeProgram's, or what `begin` makes of a request. Its files are below
    `file_root`.
    `asked`: the verbs of machine operations that it received. `verbs_now`: verbs that replace its
    usual ones.
    """

    def __init__(self, guest: Guest, directory: Path) -> None:
        self.guest = guest
        self.file_root = DirectoryFileRoot(directory / "work")
        self.file_root.root.mkdir(parents=True)
        self.files = NodeFiles(self.file_root, directory / "spool")
        self.programs: list[FakeProgram] = []
        self.begin: Callable[[Request, Listener], FakeProgram] = FakeProgram
        self.asked: list[str] = []
        self.verbs_now: dict[str, Verb] = {}
        self.state = "running"
        self.bus: StompBus

    def start(self, request: Request, listener: Listener) -> FakeProgram:
        self.programs.append(self.begin(request, listener))
        return self.programs[-1]

    def end_programs(self) -> None:
        for program in self.programs:
            program.signal(9)

    def verbs(self) -> dict[str, Verb]:
        usual = {name: self._verb(name) for name in ("pause", "resume", "save", "snapshot_take")}
        return {
            name: self._chosen(name, verb) for name, verb in {**usual, **self.files.verbs}.items()
        }

    def _chosen(self, name: str, usual: Verb) -> Verb:
        async def verb(table: Mapping[str, object], data: bytes) -> Reply:
            return await self.verbs_now.get(name, usual)(table, data)

        return verb

    def _verb(self, name: str) -> Verb:
        async def verb(table: Mapping[str, object], _data: bytes) -> Reply:
            self.asked.append(name)
            if name == "snapshot_take":
                return Reply({"state": "running", "snapshot": table["name"]})
            return Reply({"state": "paused" if name == "pause" else "running"})

        return verb

    def report(self) -> Report:
        return Report(VmState(self.state), cpu=0.5, memory=3 << 30)


class Faces:
    """A controller without machines, and its servers by "unix" or "tcp"."""

    def __init__(self, controller: Controller, directory: Path, stack: AsyncExitStack) -> None:
        self.controller = controller
        self.directory = directory
        self.socket = directory / "http.sock"
        self.port = 0
        self._stack = stack
        self._group: asyncio.TaskGroup | None = None
        self.guests: dict[str, FakeGuest] = {}

    async def serve(self, location: ListenAddress, policy: Policy) -> Server:
        server = Server(self.controller, location, policy)
        _, port = await server.open()
        self.port = port or self.port
        self._stack.push_async_callback(server.close)
        return server

    async def serve_unix(self) -> Server:
        return await self.serve(
            ListenAddress(self.socket), Policy(trusts_all=True, shared=Path("/"))
        )

    async def serve_tcp(self, **location: str) -> Server:
        return await self.serve(
            ListenAddress(**location), Policy(token=TOKEN, shared=self.directory)
        )  # type: ignore[arg-type]

    async def talk(self) -> Talk:
        """Connect by TCP if that is served, otherwise by the UNIX socket."""
        if self.port:
            return await self.talk_over(*await asyncio.open_connection("127.0.0.1", self.port))
        return await self.talk_over(*await asyncio.open_unix_connection(str(self.socket)))

    async def talk_over(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Talk:
        """Make a connection of the streams; it is closed at the end."""
        talk = Talk(reader, writer)
        self._stack.push_async_callback(talk.close)
        return talk

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str] = {}, body: bytes = b""
    ) -> Answer:
        talk = await self.talk()
        await talk.ask(method, path, headers, body)
        return await talk.answer()

    async def call(self, operation: str, **arguments: object) -> Answer:
        headers = {**JSON, **BEARER}
        return await self.ask("POST", f"/api/{operation}", headers, json.dumps(arguments).encode())

    async def add_guest(self, name: str, **labels: str) -> FakeGuest:
        """Add a guest that is present and running."""
        if self._group is None:
            self._group = await self._stack.enter_async_context(asyncio.TaskGroup())
        guest = Guest(
            name,
            name,
            labels=labels,
            capabilities=frozenset(("run", "files", "lifecycle")),
            instance=secrets.token_hex(4),
        )
        made = self.guests[name] = FakeGuest(guest, self.directory / name)
        self._stack.push_async_callback(made.files.close)
        self._stack.callback(made.end_programs)
        bus = await open_bus(self.controller.side.address_for(name, ""))
        made.bus = bus
        self._stack.push_async_callback(bus.close)
        verbs = made.verbs()
        there = Node(bus, guest, made.start, self._group, verbs=verbs, report=made.report)
        await there.open()
        self._stack.push_async_callback(there.close)
        async with asyncio.timeout(LIMIT):
            async for event in self.controller.events.follow(0):
                if event.kind == "vm_load" and event.vm == name:
                    break
        return made

    @classmethod
    @asynccontextmanager
    async def open(cls, directory: Path) -> AsyncIterator[Self]:
        async with (
            run_controller(directory / "controller") as controller,
            AsyncExitStack() as stack,
        ):
            yield cls(controller, directory, stack)


async def bounded(work: Any) -> Any:
    async with asyncio.timeout(LIMIT):
        return await work
