"""A real chirp_server on the loopback, and a stand-in that follows a script."""

import asyncio
import os
import pwd
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.free_ports import free_port

LIMIT = 30.0


class RealServer:
    """A chirp_server that serves `root`.

    A client that proves to be this user may do everything, others nothing.
    """

    def __init__(self, location: Path) -> None:
        self.root = location / "root"
        self.root.mkdir(parents=True)
        self._location = location
        self._process: asyncio.subprocess.Process | None = None
        self.port = free_port()  # not one that others could be given while the server is down

    async def start(self) -> None:
        """Start it; again, at its former port."""
        user = ["--user", pwd.getpwuid(0).pw_name] if os.geteuid() == 0 else []
        self._process = await asyncio.create_subprocess_exec(
            *("chirp_server", "--root", self.root, "--interface", "127.0.0.1"),
            *("--port", str(self.port), "--advertise", "127.0.0.1", *user),
            *("--idle-clients", "20", "--parent-death"),
            *("--transient", self._location),
            cwd=self._location,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        async with asyncio.timeout(LIMIT):
            while not await self._answers():  # noqa: ASYNC110 - it does not say when
                await asyncio.sleep(0.05)

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    async def kill(self) -> None:
        """Kill it with all its children, which each serve a client. Idempotent."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            await self._process.wait()
            self._process = None

    def url(self, path: str) -> str:
        return f"chirp://127.0.0.1:{self.port}/{path}"


@asynccontextmanager
async def real_server(location: Path) -> AsyncIterator[RealServer]:
    made = RealServer(location / "chirp")
    try:
        await made.start()
        yield made
    finally:
        await made.kill()


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def stand_in(script: Script) -> AsyncIterator[int]:
    """Run a server that admits each client by its host's name and then follows `script`.

    Yields its port.
    """
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await let_in(reader, writer)
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            running.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running)


async def let_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readuntil() != b"hostname\n":
        writer.write(b"no\n")
    writer.write(b"yes\nyes\nyes\nhostname\nlocalhost\n")


def answers(*lines: bytes) -> Script:
    """Make a script that answers one request after the other; then the connection ends."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line in lines:
            await reader.readuntil()
            writer.write(line)
            await writer.drain()
        await reader.read()

    return script
