"""`boincvm shell` on a real terminal, with a real controller; the guest's programs run here."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from boincvm.controller.protocol.program import Request
from boincvm.controller.serve.server import Server
from boincvm.exit_codes import ExitCode
from boincvm.guestlink.program import ProgramEnd
from boincvm.node.command import Listener
from support.controller.faces import Faces
from support.on_terminal import OnTerminal, on_terminal, session

BOINCVM = (sys.executable, "-m", "boincvm.cli.main")
ENVIRONMENT = {"PATH": os.environ["PATH"]}


class LocalProgram:
    """A program that runs on this host, with unlimited credit."""

    def __init__(self, request: Request, listener: Listener) -> None:
        self._given: asyncio.Queue[bytes] = asyncio.Queue()
        self._listener = listener
        self.signals: list[int] = []
        self._end = asyncio.ensure_future(self._run(request))

    async def _run(self, request: Request) -> ProgramEnd:
        self._process = process = await asyncio.create_subprocess_exec(
            *request.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**ENVIRONMENT, **request.environment},
        )
        assert process.stdout is not None
        feeding = asyncio.ensure_future(self._feed(process))
        try:
            while data := await process.stdout.read(1 << 16):
                self._listener.output("stdout", data)
            code = await process.wait()
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        return ProgramEnd(max(code, 0), -code if code < 0 else None, 0, 0, 0, 0, 0)

    async def _feed(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        while data := await self._given.get():
            process.stdin.write(data)
            await process.stdin.drain()
            self._listener.input_taken(len(data))
        process.stdin.close()

    def feed(self, data: bytes) -> None:
        self._given.put_nowait(data)

    def end_input(self) -> None:
        self._given.put_nowait(b"")

    def grant(self, count: int) -> None: ...

    def signal(self, number: int) -> None:
        self.signals.append(number)
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def wait(self) -> ProgramEnd:
        return await self._end


class Location:
    def __init__(self, faces: Faces, server: Server) -> None:
        self.faces = faces
        self.server = server

    def shell(self, *arguments: str):
        environment = {"BOINCVM_CONTROLLER": f"unix:{self.faces.socket}", "TERM": "linux"}
        return on_terminal(*BOINCVM, "shell", *arguments, environment=environment)

    def program(self) -> LocalProgram:
        (program,) = self.faces.guests["web.1"].programs
        assert isinstance(program, LocalProgram)
        return program


@asynccontextmanager
async def a_guest(directory: Path) -> AsyncIterator[Location]:
    async with Faces.open(directory) as faces:
        guest = await faces.add_guest("web.1")
        guest.begin = LocalProgram  # type: ignore[assignment]
        yield Location(faces, await faces.serve_unix())


async def ends(terminal: OnTerminal, code: int) -> None:
    assert await terminal.code() == code
    assert terminal.modes() == terminal.modes_before


async def test_a_shell(tmp_path: Path) -> None:
    async with a_guest(tmp_path) as location, location.shell("web.*", "--", "sh") as terminal:
        await session(terminal)
        assert not location.program().signals


async def test_a_flood_of_output_ends_where_it_ends(tmp_path: Path) -> None:
    async with a_guest(tmp_path) as location:
        script = "seq 100000; echo end''ed; exit 3"
        async with location.shell("web.1", "--", "sh", "-c", script) as terminal:
            await terminal.until("ended")
            await ends(terminal, 3)
            # What is missing has been said so.
            assert "99999\r\n100000\r\n" in terminal.shown


async def test_the_user_leaves(tmp_path: Path) -> None:
    async with a_guest(tmp_path) as location:
        script = "trap 'exit 5' HUP; echo rea''dy; while :; do sleep 0.01; done"
        async with location.shell("web.1", "--", "sh", "-c", script) as terminal:
            await terminal.until("ready")
            terminal.type("\r~.")
            await terminal.until("left web.1")
            await ends(terminal, ExitCode.HUNG_UP)
            assert (await location.program().wait()).code == 5


async def test_the_guest_gets_nothing_any_more(tmp_path: Path) -> None:
    async with a_guest(tmp_path) as location:
        async with location.shell("web.1", "--", "cat") as terminal:
            terminal.type("one\r")
            await terminal.until("one\r\none")
            remote = location.program()
            remote.signal(signal.SIGSTOP)
            terminal.type("two\r~.")
            await terminal.until("left web.1")
            await ends(terminal, ExitCode.HUNG_UP)
        # What could not be asked to end was killed.
        assert (await remote.wait()).signal == signal.SIGKILL


async def test_the_controller_is_gone(tmp_path: Path) -> None:
    async with a_guest(tmp_path) as location, location.shell("web.1", "--", "cat") as terminal:
        terminal.type("one\r")
        await terminal.until("one\r\none")
        await location.server.close()
        await terminal.until("closed the connection")
        await ends(terminal, ExitCode.HOST)
        location.program().signal(signal.SIGKILL)


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ("web.7", "'web.7' matches no machine"),
        ("all", "'all' matches 2 machines, expected one"),
    ],
)
async def test_which_machine(tmp_path: Path, selector: str, words: str) -> None:
    async with a_guest(tmp_path) as location:
        await location.faces.add_guest("web.2")
        async with location.shell(selector) as terminal:
            await terminal.until(words)
            await ends(terminal, ExitCode.USAGE)


async def test_there_is_no_such_program(tmp_path: Path) -> None:
    async with a_guest(tmp_path) as location, location.shell("web.1", "--", "no-such") as terminal:
        await terminal.until("no-such: No such file or directory")
        await ends(terminal, 127)
