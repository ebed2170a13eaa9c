"""A program on a terminal of its own, used like a person would."""

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

LIMIT = 60.0


class OnTerminal:
    """A program and its terminal; `shown`: all text that the screen has shown."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        ours: int,
        theirs: int,
        modes_before: list[object],
    ) -> None:
        self.process = process
        self.modes_before = modes_before
        self._ours = ours
        self._theirs = theirs
        self._data = b""
        self._seen = 0
        self._news = asyncio.Event()
        os.set_blocking(ours, False)
        asyncio.get_running_loop().add_reader(ours, self._read)

    @property
    def shown(self) -> str:
        return self._data.decode(errors="replace")

    def modes(self) -> list[object]:
        return termios.tcgetattr(self._theirs)

    def _read(self) -> None:
        try:
            self._data += os.read(self._ours, 1 << 16)
        except OSError:
            asyncio.get_running_loop().remove_reader(self._ours)
        self._news.set()

    async def until(self, text: str) -> None:
        """Wait until it shows `text`, after what was waited for before."""
        sought = text.encode()
        try:
            async with asyncio.timeout(LIMIT):
                while (at := self._data.find(sought, self._seen)) < 0:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{text!r} is not shown in {self.shown!r}") from None
        self._seen = at + len(sought)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        set_size(self._ours, rows, columns)

    async def code(self) -> int:
        async with asyncio.timeout(LIMIT):
            return await self.process.wait()


async def session(terminal: OnTerminal) -> None:
    """Use a shell as a person does, from its first prompt to `exit 7`."""
    terminal.type("tty; stty size; echo $TERM\r")
    await terminal.until("/dev/pts/")
    await terminal.until("24 80")
    await terminal.until("linux")
    assert terminal.modes() != terminal.modes_before
    terminal.resize(33, 101)
    terminal.type("until stty size | grep 101; do sleep 0.1; done\r")
    await terminal.until("33 101")
    # A shell that has not yet started its program would get the signal in its place.
    terminal.type("sh -c 'echo at $((6 * 7)); exec sleep 100'\r")
    await terminal.until("at 42")
    terminal.type("\x03")
    await terminal.until("^C")
    terminal.type("exit 7\r")
    assert await terminal.code() == 7
    assert terminal.modes() == terminal.modes_before


def set_size(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@asynccontextmanager
async def on_terminal(
    *argv: str,
    environment: Mapping[str, str] = {},
    directory: Path | None = None,
    rows: int = 24,
    columns: int = 80,
) -> AsyncIterator[OnTerminal]:
    """Run a program on a terminal within the block; kill it at the end if it still runs."""
    ours, theirs = os.openpty()
    set_size(ours, rows, columns)
    modes = termios.tcgetattr(theirs)  # The program may change them as soon as it runs.
    process = await asyncio.create_subprocess_exec(
        "setsid",
        "--ctty",
        *argv,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=directory,
        env={**os.environ, **environment},
    )
    try:
        yield OnTerminal(process, ours, theirs, modes)
    finally:
        asyncio.get_running_loop().remove_reader(ours)
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)
        os.close(theirs)
