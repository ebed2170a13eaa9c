"""The wrapper's ear for its user: a socket in the slot, by which a checkpoint is asked for.

One request a connection, a line of JSON; one answer, a line of JSON. Only the user whose task it
is may connect.
"""

import asyncio
import json
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from boincvm.errors import BoincvmError, HostError
from boincvm.host.sockets import connect, private_listener

SOCKET = "boincvm.sock"
_LONGEST = 4096
_LIMIT = 10.0
"""Seconds in which a request must have come."""

Take = Callable[[], Awaitable[dict[str, object]]]
"""Makes a checkpoint; what is to be told of it."""


class ControlSocket:
    """Made by `open`."""

    def __init__(self, slot: Path, take: Take) -> None:
        self._path = slot / SOCKET
        self._take = take
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listens. Raises OSError."""
        listener = private_listener(self._path)
        try:
            self._server = await asyncio.start_server(self._serve, sock=listener, limit=_LONGEST)
        except BaseException:
            listener.close()
            raise

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_LIMIT):
                line = await reader.readline()
            answer = await self._answer(line)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (TimeoutError, ValueError, ConnectionError):
            pass  # it said nothing of use, or has gone
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
            return await self._take()
        except BoincvmError as error:
            return {"error": error.message, "hint": error.hint}

    async def close(self) -> None:
        """Nobody is heard any more, and the socket is gone; again is harmless."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
            self._server = None


async def ask_for_checkpoint(slot: Path, limit: float) -> dict[str, object]:
    """Has the wrapper that runs in `slot` make one now; what it tells of it.

    Raises HostError where none runs there, or it could not.
    """
    path = slot / SOCKET
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise HostError(f"{path} is no socket", hint="remove it")
        peer = await connect(path)
        reader, writer = await asyncio.open_connection(sock=peer, limit=1 << 16)
    except OSError as error:
        raise HostError(
            f"no job with a machine runs in {slot}: {error.strerror}",
            hint="name the directory in which boincvm-wrapper runs, a BOINC slot for instance",
        ) from error
    try:
        async with asyncio.timeout(limit):
            writer.write(b'{"verb": "checkpoint"}\n')
            answer = json.loads(await reader.readline() or b'{"error": "it has ended"}')
    except (TimeoutError, ValueError, RecursionError, ConnectionError) as error:
        raise HostError(f"the job in {slot} does not answer: {error or 'no time left'}") from error
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    if "error" in answer:
        raise HostError(f"no checkpoint was made: {answer['error']}", hint=answer.get("hint", ""))
    return dict(answer)
