"""Serve streams: events, output and input of commands, files, screens."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from boincvm.controller import operations
from boincvm.controller.commands import json as command_table
from boincvm.controller.commands.command import Command
from boincvm.controller.controller import Controller
from boincvm.controller.files.transfer import Download
from boincvm.controller.serve.auth import TOKEN_PROTOCOL
from boincvm.controller.serve.bodies import body, error_table, json_object, pieces
from boincvm.controller.serve.shutdown import Flow, Shutdown
from boincvm.errors import BoincvmError, UsageError
from boincvm.json_value import Json
from boincvm.tree_entries import time_of

MOST_INPUT = 16 << 20
MOST_FILE = 1 << 42
_PIECE = 1 << 16
_LINES = "application/x-ndjson"


class Streams:
    """Handlers for Starlette's routes; those that follow something run until `shutdown`."""

    def __init__(self, controller: Controller, shutdown: Shutdown) -> None:
        self._controller = controller
        self._shutdown = shutdown

    # Events.

    async def events(self, request: Request) -> Response:
        after = _whole(request, "after")
        if request.query_params.get("follow") == "yes":
            return Flow(_lines(self._tables(after)), self._shutdown, _LINES)
        found = [event.table() for event in self._controller.events.list_after(after)]
        return Response(b"".join(map(_line, found)), media_type=_LINES)

    async def _tables(self, after: int) -> AsyncGenerator[dict[str, Json], None]:
        """Yield events as JSON objects, and how many a client that is too slow has missed."""
        async with aclosing(self._controller.events.follow(after)) as follow:
            async for event in follow:
                if after and event.number > after + 1:
                    yield {"skipped": event.number - after - 1}
                after = event.number
                yield event.table()

    async def events_socket(self, socket: WebSocket) -> None:
        try:
            after = _whole(socket, "after")
        except UsageError as error:
            await socket.close(1008, _reason(error))
            return
        await socket.accept(_protocol(socket))

        async def notify() -> None:
            async with aclosing(self._tables(after)) as tables:
                async for table in tables:
                    await socket.send_text(json.dumps(table))

        await self._speak(socket, notify(), _until_gone(socket))

    async def _speak(self, socket: WebSocket, *works: Coroutine[None, None, None]) -> None:
        """Run `works` until one of them ends or the server stops."""
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            async with self._shutdown.until():
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(WebSocketDisconnect, RuntimeError):  # the socket is closed already
            await socket.close(1012 if self._shutdown.is_now else 1000)
        for end in ends:
            # Either side may hang up at any moment.
            if isinstance(end, Exception) and not isinstance(end, WebSocketDisconnect | OSError):
                raise end

    # Commands.

    async def exec(self, request: Request) -> Response:
        """Run the operation `exec`, with `follow` including its output in the answer."""
        begun = {
            "result": await operations.call(self._controller, "exec", await json_object(request))
        }
        if request.query_params.get("follow") != "yes":
            return JSONResponse(begun)
        command = self._controller.hub.commands.find(str(begun["result"]["command"]))

        async def all_of_it() -> AsyncGenerator[dict[str, Json], None]:
            yield dict(begun)
            async with aclosing(command_output(command, 0, follow=True)) as output:
                async for table in output:
                    yield table

        return Flow(_lines(all_of_it()), self._shutdown, _LINES)

    async def output(self, request: Request) -> Response:
        command = self._controller.hub.commands.find(request.path_params["id"])
        begin = _whole(request, "from")
        follow = request.query_params.get("follow") == "yes"
        return Flow(_lines(command_output(command, begin, follow=follow)), self._shutdown, _LINES)

    async def input(self, request: Request) -> Response:
        data = await body(request, MOST_INPUT)
        ends = request.query_params.get("ends") == "yes"
        await self._controller.give_input(request.path_params["id"], data, ends=ends)
        return JSONResponse({"result": {}})

    # Files.

    async def put_file(self, request: Request) -> Response:
        asked = request.query_params
        kind = asked.get("kind", "file")
        if kind not in ("file", "tree"):
            raise UsageError(f"found the kind {kind[:20]!r}, expected file or tree")
        length = request.headers.get("content-length", "")
        outcomes = await self._controller.files.put(
            asked.get("vms", ""),
            asked.get("path", ""),
            pieces(request, MOST_FILE),
            is_tree=kind == "tree",
            mode=_octal(asked.get("mode", "644")),
            size=int(length) if length.isdecimal() else None,
            modified=_time(asked.get("modified")),
            transfer=asked.get("transfer"),
        )
        return JSONResponse({"result": {"outcomes": outcomes}})

    async def get_file(self, request: Request) -> Response:
        asked = request.query_params
        begin = _whole(request, "from")
        gotten = await self._controller.files.get(
            asked.get("vm", ""),
            asked.get("path", ""),
            transfer=asked.get("transfer"),
            offset=begin,
        )
        headers = {
            "content-length": str(gotten.size - begin),
            "x-boincvm-digest": gotten.chunks.digest,
            "x-boincvm-kind": "tree" if gotten.is_tree else "file",
            "x-boincvm-mode": f"{gotten.mode:o}",
            "content-disposition": "attachment",
        }
        if gotten.modified is not None:
            headers["x-boincvm-modified"] = str(gotten.modified)
        chunks = _last_when_right(gotten.chunks)
        return Flow(chunks, self._shutdown, "application/octet-stream", headers, is_whole=True)

    # Screens.

    async def console(self, socket: WebSocket) -> None:
        try:
            reader, writer = await self._controller.console(socket.path_params["vm"])
        except BoincvmError as error:
            # A reason can be given only after the socket was accepted.
            await socket.accept(_protocol(socket))
            await socket.close(4404, _reason(error))
            return

        async def from_machine() -> None:
            while data := await reader.read(_PIECE):
                await socket.send_bytes(data)

        async def to_machine() -> None:
            while (message := await socket.receive())["type"] == "websocket.receive":
                writer.write(message.get("bytes") or b"")
                await writer.drain()

        try:
            await socket.accept(_protocol(socket))
            await self._speak(socket, from_machine(), to_machine())
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def _last_when_right(chunks: Download) -> AsyncGenerator[bytes, None]:
    """Yield pieces, holding back the last one until the whole content has been verified.

    The client must not have received everything if it turns out to be wrong.
    """
    held = b""
    async with aclosing(chunks):
        async for data in chunks:
            if held:
                yield held
            held = data
    if held:
        yield held


async def command_output(
    command: Command, begin: int, *, follow: bool
) -> AsyncGenerator[dict[str, Json], None]:
    """Yield a command's output from byte `begin` of each stream on, and finally the command.

    With `follow`, new output is yielded too, until the command has ended.
    """
    sent: dict[tuple[str, str], int] = {}
    while True:
        is_news = False
        for vm, answer in command.answers.items():
            for stream, log in answer.outputs.items():
                wanted = sent.get((vm, stream), begin)
                if log.end > wanted:
                    offset, data = log.read(wanted, _PIECE)
                    is_news = True
                    sent[vm, stream] = offset + len(data)
                    text = base64.b64encode(data).decode()
                    yield {"vm": vm, "stream": stream, "offset": offset, "data": text}
        if is_news:
            continue
        if command.is_finished or not follow:
            yield {"command": command_table.table(command)}
            return
        await command.changed()


async def _lines(tables: AsyncGenerator[dict[str, Json], None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(tables):
        try:
            async for table in tables:
                yield _line(table)
        except BoincvmError as error:
            yield _line({"error": error_table(error)})


def _line(table: object) -> bytes:
    return json.dumps(table).encode() + b"\n"


async def _until_gone(socket: WebSocket) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return


def _reason(error: BoincvmError) -> str:
    """Return as much of an error's message as fits into a WebSocket's close frame."""
    return error.message.encode(errors="replace")[:120].decode(errors="ignore")


def _protocol(socket: WebSocket) -> str | None:
    """Return the subprotocol to use: browsers expect one of those that they offered."""
    offered: list[str] = socket.scope["subprotocols"]
    ours = [protocol for protocol in offered if not protocol.startswith(TOKEN_PROTOCOL)]
    return next(iter([*ours, *offered]), None)


def _whole(connection: HTTPConnection, name: str) -> int:
    text = connection.query_params.get(name, "0")
    if not text.isdecimal() or len(text) > 15:
        raise UsageError(f"the parameter {name} must be a whole number")
    return int(text)


def _time(text: str | None) -> int | None:
    try:
        return time_of(text)
    except ValueError:
        raise UsageError("the parameter modified must be in nanoseconds since 1970") from None


def _octal(text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise UsageError(f"found the mode {text[:20]!r}, expected one such as 644") from None
