"""Bodies of requests, never longer than they may be; and errors as answers."""

import json
import logging
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse

from boincvm.errors import (
    BoincvmError,
    BusError,
    GuestError,
    GuestHungError,
    HostDiskFullError,
    UsageError,
)
from boincvm.exit_codes import ExitCode

MOST_JSON = 1 << 20
_STATUS = (
    (UsageError, 400),
    (GuestHungError, 504),
    (GuestError, 502),
    (BusError, 503),
    (HostDiskFullError, 507),
)
_LOG = logging.getLogger("boincvm.controller")


class TooLargeError(UsageError):
    """A body is longer than it may be."""


async def body(request: Request, most: int) -> bytes:
    """All of it. Raises TooLargeError before more than `most` bytes were taken."""
    data = bytearray()
    async for piece in pieces(request, most):
        data += piece
    return bytes(data)


async def pieces(request: Request, most: int) -> AsyncIterator[bytes]:
    """As they come. Raises TooLargeError."""
    told, count = request.headers.get("content-length", "0"), 0
    if told.isdecimal() and int(told) > most:
        raise TooLargeError(f"a body of {told} bytes, where {most} are the most")
    async for piece in request.stream():
        count += len(piece)
        if count > most:
            raise TooLargeError(f"a body of more than {most} bytes")
        yield piece


async def json_object(request: Request) -> dict[str, object]:
    """An empty body is an empty object. Raises UsageError."""
    data = await body(request, MOST_JSON)
    try:
        table = json.loads(data or b"{}", parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is no JSON: {error}"[:200]) from error
    if not isinstance(table, dict):
        raise UsageError(
            "the body is no JSON object", hint='send an object, such as {"vms": "all"}'
        )
    return table


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def error_table(error: BaseException) -> dict[str, object]:
    """What a client is told of it; what is no fault of ours in words is only logged."""
    if isinstance(error, BoincvmError):
        code = int(error.exit_code)
        return {"message": error.message, "hint": error.hint, "code": code}
    _LOG.error("a request failed", exc_info=error)
    told = "the controller has failed at it, and says more in its log"
    return {"message": told, "hint": "please report it", "code": int(ExitCode.BUG)}


def error_answer(error: BaseException) -> JSONResponse:
    """With a fitting status."""
    if isinstance(error, TooLargeError):
        status = 413
    elif isinstance(error, BoincvmError):
        status = next((number for kind, number in _STATUS if isinstance(error, kind)), 409)
    else:
        status = 500
    return JSONResponse({"error": error_table(error)}, status)
