"""Read request bodies of limited size, and turn errors into answers."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from boincvm.errors import (
    BoincvmError,
    BusError,
    GuestError,
    GuestHungError,
    GuestNeverBootedError,
    HostDiskFullError,
    HypervisorMissingError,
    ImageMissingError,
    InputFileError,
    JobFileError,
    LimitError,
    MachineStateError,
    OutputFileError,
    UsageError,
)
from boincvm.exit_codes import ExitCode
from boincvm.json_value import Json

MOST_JSON = 1 << 20
_JSON = "application/json"
BODY_LIMIT = 60.0
"""Seconds within which more of a body must arrive."""
_STATUS: tuple[tuple[type[BoincvmError], int], ...] = (
    (MachineStateError, 409),
    (UsageError, 400),
    (JobFileError, 400),
    (ImageMissingError, 404),
    (InputFileError, 422),
    (OutputFileError, 422),
    (LimitError, 422),
    (GuestHungError, 504),
    (GuestNeverBootedError, 504),
    (GuestError, 502),
    (BusError, 503),
    (HypervisorMissingError, 503),
    (HostDiskFullError, 507),
)
"""The HTTP status of errors; all others are 409: the state of host or machine is to blame."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LOG = logging.getLogger("boincvm.controller")


class BodyError(UsageError):
    """A body that is not read to its end; the connection is closed after the answer."""

    def __init__(self, status: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        """The HTTP status of the answer."""


async def body(request: Request, most: int) -> bytes:
    """Read the whole body. Raises BodyError if it has more than `most` bytes."""
    data = bytearray()
    async for piece in pieces(request, most):
        data += piece
    return bytes(data)


async def pieces(request: Request, most: int) -> AsyncIterator[bytes]:
    """Yield a body's pieces as they arrive. Raises BodyError."""
    length, count = request.headers.get("content-length", "0"), 0
    if length.isdecimal() and int(length) > most:
        raise BodyError(413, f"a body of {length} bytes; the maximum is {most}")
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(BODY_LIMIT):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise BodyError(408, f"no more of the body arrived for {BODY_LIMIT:g} s") from None
        except ClientDisconnect:
            raise BodyError(
                400, "the client closed the connection before the end of the body"
            ) from None
        count += len(piece)
        if count > most:
            raise BodyError(413, f"a body of more than {most} bytes")
        if piece:
            yield piece


async def json_object(request: Request) -> dict[str, object]:
    """Read a JSON object; an empty body stands for an empty object. Raises UsageError."""
    kind = request.headers.get("content-type", _JSON).partition(";")[0].strip().lower()
    if kind != _JSON:
        raise BodyError(415, f"a body of the type {kind[:80]!r}", hint=f"content-type: {_JSON}")
    data = await body(request, MOST_JSON)
    try:
        table = json.loads(data or b"{}", parse_constant=_no_number)
        if _SURROGATE.search(data):  # half of a surrogate pair, which cannot be encoded
            json.dumps(table, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is not valid JSON: {error}"[:200]) from error
    if not isinstance(table, dict):
        raise UsageError(
            "the body is not a JSON object", hint='send an object, such as {"vms": "all"}'
        )
    return table


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not a number")


def error_table(error: BaseException) -> dict[str, Json]:
    """Return an error as a client sees it; the details of unexpected ones are only logged."""
    if isinstance(error, BoincvmError):
        return {**error.table()}
    _LOG.error("a request failed", exc_info=error)
    message = "this is a fault of the controller; its log says more"
    return {"message": message, "hint": "please report it", "code": int(ExitCode.BUG)}


def error_answer(error: BaseException) -> JSONResponse:
    """Return an error as an answer with the right status."""
    headers = None
    if isinstance(error, BodyError):
        # The rest of the body must not be taken for the next request, or waited for.
        status, headers = error.status, {"connection": "close"}
    elif isinstance(error, BoincvmError):
        status = next((number for kind, number in _STATUS if isinstance(error, kind)), 409)
    else:
        status = 500
    return JSONResponse({"error": error_table(error)}, status, headers)


async def answer_error(_request: Request, error: Exception) -> Response:
    """Answer an error, as an exception handler of Starlette."""
    return error_answer(error)
