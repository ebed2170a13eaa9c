"""Who may come in: checked before anything of a request is looked at."""

import base64
import binascii
import hmac
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from boincvm.atomic_files import write_atomically

TOKEN_PROTOCOL = "boincvm.token."  # noqa: S105 - what stands before one
HAS_CERTIFICATE = "has_certificate"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_PAGE = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": _PAGE
    + " connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


class Policy(NamedTuple):
    """trusts_all: the socket has been checked already. token: one that opens everything.
    hosts: names that a request may be addressed to, so that no name of somebody else's leads a
    browser here (DNS rebinding); empty for any."""

    trusts_all: bool = False
    token: str = ""
    hosts: tuple[str, ...] = _LOOPBACK

    def knows(self, connection: HTTPConnection) -> bool:
        """Whether it may do everything."""
        if self.trusts_all or connection.scope.get("state", {}).get(HAS_CERTIFICATE):
            return True
        return any(
            hmac.compare_digest(token.encode(), self.token.encode())
            for token in _tokens(connection.headers)
            if self.token
        )

    def is_addressed(self, headers: Headers) -> bool:
        """Whether the request is meant for us."""
        host = headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return self.trusts_all or not self.hosts or name.lower() in self.hosts

    def is_from_here(self, headers: Headers) -> bool:
        """Whether a browser's page that asks, if it is one, is ours."""
        origin = headers.get("origin")
        return origin is None or urlsplit(origin).netloc == headers.get("host")


def _tokens(headers: Headers) -> Iterable[str]:
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        yield value.strip()
    elif kind.lower() == "basic":
        try:
            yield base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(TOKEN_PROTOCOL):
            yield protocol.strip().removeprefix(TOKEN_PROTOCOL)


def is_public(path: str) -> bool:
    """The page's own files, which tell nothing."""
    return not path.startswith(("/api", "/RPC2"))


class Gate:
    """Around the app."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        refusal = self._refusal(connection)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1]})
        else:
            await refuse(*refusal)(scope, receive, _with_headers(send))

    def _refusal(self, connection: HTTPConnection) -> tuple[int, str, str] | None:
        headers = connection.headers
        if not self._policy.is_addressed(headers):
            return 421, "the request is addressed to another host", "use the address that was told"
        if not self._policy.is_from_here(headers):
            return 403, "a page of another site has asked", "open the controller's own page"
        if is_public(connection.url.path) or self._policy.knows(connection):
            return None
        return 401, "the token is missing or wrong", "the controller told it when it started"


def refuse(status: int, message: str, hint: str) -> JSONResponse:
    """An answer that says why not."""
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    told = {"error": {"message": message, "hint": hint, "code": 210}}
    return JSONResponse(told, status, headers)


def _with_headers(send: Send) -> Send:
    async def sent(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            raw = list(message.get("headers", []))  # type: ignore[call-overload]
            raw += [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            if not any(name == b"cache-control" for name, _ in raw):
                raw.append((b"cache-control", b"no-store"))
            message = {**message, "headers": raw}
        await send(message)

    return sent  # type: ignore[return-value]


def token_in(path: Path) -> str:
    """The token in that file, which is made if there is none. Raises OSError."""
    if path.exists():
        return path.read_text().strip()
    token = secrets.token_urlsafe(32)
    write_atomically(path, token + "\n")
    path.chmod(0o600)
    return token
