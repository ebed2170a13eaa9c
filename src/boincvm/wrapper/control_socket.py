"""The wrapper's control socket in the slot, on which its user requests checkpoints.

A connection carries one request and one answer, each a line of JSON. Only the user who runs the
task may connect.
"""

import asyncio
import json
import stat
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from boincvm.errors import BoincvmError, HostError
from boincvm.host.local_servers import LocalServer, serve_locally
from boincvm.host.sockets import connect

SOCKET = "boincvm.sock"
_LONGEST = 4096
_LIMIT = 10.0
"""Seconds within which a request must arrive."""

Save = Callable[[], Awaitable[dict[str, object]]]
"""Makes a checkpoint; returns what the user is told about it."""


class ControlSocket:
    """The server side of the socket, created by `open`."""

    def __init__(self, slot: Path, save: Save) -> None:
        self._path = slot / SOCKET
        self._save = save
        self._server: LocalServer | None = None

    async def open(self) -> None:
        """Start listening. Raises OSError."""
        self._server = await serve_locally(self._path, self._protocol)

    def _protocol(self) -> asyncio.BaseProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(_LONGEST), self._serve)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_LIMIT):
                line = await reader.readline()
            answer = await self._answer(line)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (TimeoutError, ValueError, ConnectionError):
            pass  # the peer sent nothing usable, or is gone
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, object]:
        try:
            request = json.loads(line)
            verb = request["verb"]
        except (ValueError, KeyError, TypeError, RecursionError):
            verb = None
        if verb != "checkpoint":
            return {"error": "it was not understood", "hint": ""}
        try:
            return await self._save()
        except BoincvmError as error:
            return {"error": error.message, "hint": error.hint}

    async def close(self) -> None:
        """Stop listening and remove the socket. Calling it again is harmless."""
        if self._server is not None:
            self._server.close()
            self._server = None


async def ask_for_checkpoint(slot: Path, limit: float) -> dict[str, object]:
    """Ask the wrapper that runs in `slot` for a checkpoint; return what it says about it.

    Raises HostError if no wrapper runs there, or it could not make one.
    """
    path = slot / SOCKET
    try:
        if sys.platform != "win32" and not stat.S_ISSOCK(path.stat().st_mode):
            raise HostError(f"{path} is not a socket", hint="remove it")
        peer = await connect(path)
        reader, writer = await asyncio.open_connection(sock=peer, limit=1 << 16)
    except OSError as error:
        raise HostError(
            f"no job with a machine runs in {slot}: {error.strerror}",
            hint="give the directory in which boincvm-wrapper runs, for example a BOINC slot",
        ) from error
    try:
        async with asyncio.timeout(limit):
            writer.write(b'{"verb": "checkpoint"}\n')
            answer = json.loads(await reader.readline() or b'{"error": "it has ended"}')
    except (TimeoutError, ValueError, RecursionError, ConnectionError) as error:
        raise HostError(
            f"the job in {slot} does not answer: {error or 'it took too long'}"
        ) from error
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    if "error" in answer:
        raise HostError(f"no checkpoint was made: {answer['error']}", hint=answer.get("hint", ""))
    return dict(answer)
