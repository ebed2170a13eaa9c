"""What comes bit by bit: events, output and input of commands, files, screens."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing, suppress

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from boincvm.controller import command_table
from boincvm.controller.arguments import Json
from boincvm.controller.command import Command
from boincvm.controller.controller import Controller
from boincvm.controller.serve.bodies import body, error_answer, error_table, pieces
from boincvm.controller.serve.gate import TOKEN_PROTOCOL
from boincvm.errors import BoincvmError, UsageError

MOST_INPUT = 16 << 20
MOST_FILE = 1 << 42
_PIECE = 1 << 16
_LINES = "application/x-ndjson"


class Streams:
    """Handlers for Starlette's routes."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    # Events.

    async def events(self, request: Request) -> Response:
        after = _whole(request, "after")
        if request.query_params.get("follow") == "yes":
            return StreamingResponse(_lines(self._tables(after)), media_type=_LINES)
        found = [event.table() for event in self._controller.events.after(after)]
        return Response(b"".join(map(_line, found)), media_type=_LINES)

    async def _tables(self, after: int) -> AsyncGenerator[dict[str, Json], None]:
        """Whoever is too slow is told how many it has missed."""
        events = self._controller.events
        async with aclosing(events.follow(after)) as follow:
            async for event in follow:
                if after and event.number > after + 1:
                    yield {"skipped": event.number - after - 1}
                after = event.number
                yield event.table()

    async def events_socket(self, socket: WebSocket) -> None:
        try:
            after = _whole(socket, "after")
        except UsageError as error:
            await socket.close(1008, error.message)
            return
        await socket.accept(_protocol(socket))

        async def tell() -> None:
            async with aclosing(self._tables(after)) as tables:
                async for table in tables:
                    await socket.send_text(json.dumps(table))
            await socket.close()

        await _both(tell(), _until_gone(socket))

    # Commands.

    async def output(self, request: Request) -> Response:
        try:
            command = self._controller.desk.commands.find(request.path_params["id"])
            begin = _whole(request, "from")
        except BoincvmError as error:
            return error_answer(error)
        follow = request.query_params.get("follow") == "yes"
        return StreamingResponse(
            _lines(command_output(command, begin, follow=follow)), media_type=_LINES
        )

    async def input(self, request: Request) -> Response:
        try:
            data = await body(request, MOST_INPUT)
            ends = request.query_params.get("ends") == "yes"
            await self._controller.give_input(request.path_params["id"], data, ends=ends)
        except BoincvmError as error:
            return error_answer(error)
        return JSONResponse({"result": {}})

    # Files.

    async def put_file(self, request: Request) -> Response:
        asked = request.query_params
        try:
            told = request.headers.get("content-length", "")
            outcomes = await self._controller.files.put(
                asked.get("vms", ""),
                asked.get("path", ""),
                pieces(request, MOST_FILE),
                is_tree=asked.get("kind") == "tree",
                mode=_octal(asked.get("mode", "644")),
                size=int(told) if told.isdecimal() else None,
                transfer=asked.get("transfer"),
            )
        except BoincvmError as error:
            return error_answer(error)
        return JSONResponse({"result": {"outcomes": outcomes}})

    async def get_file(self, request: Request) -> Response:
        asked = request.query_params
        try:
            gotten = await self._controller.files.get(asked.get("vm", ""), asked.get("path", ""))
        except BoincvmError as error:
            return error_answer(error)
        headers = {
            "content-length": str(gotten.size),
            "x-boincvm-kind": "tree" if gotten.is_tree else "file",
            "x-boincvm-mode": f"{gotten.mode:o}",
            "content-disposition": "attachment",
        }
        return StreamingResponse(
            gotten.chunks, headers=headers, media_type="application/octet-stream"
        )

    # Screens.

    async def console(self, socket: WebSocket) -> None:
        try:
            reader, writer = await self._controller.console(socket.path_params["vm"])
        except BoincvmError as error:
            await socket.accept(_protocol(socket))
            await socket.close(4404, error.message[:100])
            return
        await socket.accept(_protocol(socket))

        async def from_machine() -> None:
            while data := await reader.read(_PIECE):
                await socket.send_bytes(data)
            await socket.close()

        async def to_machine() -> None:
            while True:
                writer.write(await socket.receive_bytes())
                await writer.drain()

        try:
            await _both(from_machine(), to_machine())
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def command_output(
    command: Command, begin: int, *, follow: bool
) -> AsyncIterator[dict[str, Json]]:
    """What there is of it from byte `begin` of each stream on, and with `follow` what comes, in
    pieces; at last the command itself."""
    told: dict[tuple[str, str], int] = {}
    while True:
        is_news = False
        for vm, answer in command.answers.items():
            for stream, log in answer.outputs.items():
                offset, data = log.read(told.get((vm, stream), begin), _PIECE)
                if data:
                    is_news = True
                    told[vm, stream] = offset + len(data)
                    text = base64.b64encode(data).decode()
                    yield {"vm": vm, "stream": stream, "offset": offset, "data": text}
        if is_news:
            continue
        if command.is_finished or not follow:
            yield {"command": command_table.table(command)}
            return
        await command.changed()


async def _lines(tables: AsyncIterator[dict[str, Json]]) -> AsyncIterator[bytes]:
    try:
        async for table in tables:
            yield _line(table)
    except BoincvmError as error:
        yield _line({"error": error_table(error)})


def _line(table: object) -> bytes:
    return json.dumps(table).encode() + b"\n"


async def _both(*works: Coroutine[None, None, None]) -> None:
    """Until one of them has ended."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for end in await asyncio.gather(*tasks, return_exceptions=True):
            # Whoever hangs up, on either side, does so at any moment.
            if isinstance(end, Exception) and not isinstance(
                end, WebSocketDisconnect | OSError | RuntimeError | KeyError
            ):
                raise end


async def _until_gone(socket: WebSocket) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return


def _protocol(socket: WebSocket) -> str | None:
    """The one to speak: browsers want one of those that they have offered."""
    offered: list[str] = socket.scope["subprotocols"]
    ours = [one for one in offered if not one.startswith(TOKEN_PROTOCOL)]
    return next(iter([*ours, *offered]), None)


def _whole(connection: HTTPConnection, name: str) -> int:
    text = connection.query_params.get(name, "0")
    if not text.isdecimal() or len(text) > 15:
        raise UsageError(f"the parameter {name} is to be a whole number")
    return int(text)


def _octal(text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise UsageError(f"found the mode {text[:20]!r}, expected one such as 644") from None
