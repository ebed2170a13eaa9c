"""Check who may use the server, before anything else of a request is looked at."""

import asyncio
import base64
import email.utils
import hmac
import ipaddress
import logging
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from boincvm.controller.serve.connections import CALLER, Caller
from boincvm.exit_codes import ExitCode
from boincvm.host.files import open_descriptor
from boincvm.host.own_files import open_own

TOKEN_PROTOCOL = "boincvm.token."  # noqa: S105 - the prefix of a token
_LONGEST_TOKEN = 1000
_LOG = logging.getLogger("boincvm.controller")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:[0-9]{1,5})?")
_ORIGIN = re.compile(r"(https?)://((?:\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::[0-9]{1,5})?)")
_PAGE_SCHEMES = {"http": "http", "ws": "http", "https": "https", "wss": "https"}
"""The scheme of the page, by the scheme of its request."""
_FIXED_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
    " font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " connect-src 'self'"
)


class Policy(NamedTuple):
    """The rules that say who may use a server, and how it may be addressed."""

    trusts_all: bool = False
    """Every caller may do everything: the socket checks callers itself."""
    token: str = ""
    """A caller with this token may do everything."""
    hosts: tuple[str, ...] = _LOOPBACK
    """Host names that requests may be addressed to, beside numeric addresses; empty for any.

    This keeps foreign names from leading a browser here (DNS rebinding).
    """
    shared: Path | None = None
    """A directory of this host in which XML-RPC callers may read and write files."""

    def knows(self, caller: Caller | None, headers: Headers) -> bool:
        """Tell whether the caller may do everything."""
        if self.trusts_all or (caller is not None and caller.has_certificate):
            return True
        return any(
            hmac.compare_digest(token.encode(), self.token.encode())
            for token in _tokens(headers)
            if self.token
        )

    def is_addressed(self, headers: Headers) -> bool:
        """Tell whether a request is addressed to this server; one with two hosts is not."""
        named = headers.getlist("host")
        found = _HOST.fullmatch(named[0]) if len(named) == 1 else None
        if self.trusts_all or found is None:
            return self.trusts_all
        name = found[1].lower()
        return not self.hosts or name in self.hosts or _is_number(name)

    def is_from_here(self, scheme: str, headers: Headers) -> bool:
        """Tell whether a request comes from no page, or from our own page in a browser.

        Our own page has the same scheme, host and port. A request with two origins is not from our
        page. `scheme`: of the request.
        """
        named = headers.getlist("origin")
        if not named:
            return True
        host = headers.get("host", "")
        return (
            len(named) == 1
            and host != ""
            and _origin(named[0]) == (_PAGE_SCHEMES[scheme], host.lower())
        )


def _origin(text: str) -> tuple[str, str]:
    """Return an origin's scheme, and its host and port as in `Host`; both empty if invalid.

    The origin `null` counts as invalid.
    """
    found = _ORIGIN.fullmatch(text.lower())
    return (found[1], found[2]) if found else ("", "")


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _tokens(headers: Headers) -> Iterable[str]:
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        yield value.strip()
    elif kind.lower() == "basic":
        try:
            yield base64.b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:
            return
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(TOKEN_PROTOCOL):
            yield protocol.strip().removeprefix(TOKEN_PROTOCOL)


def is_public(scope: Scope) -> bool:
    """Tell whether a request is for the web page's own files, which contain no secrets."""
    is_read = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
    return is_read and not scope["path"].startswith(("/api/", "/RPC2", "/metrics"))


class Authentication:
    """Wraps the app, and passes on the requests that the policy allows."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        caller: Caller | None = scope.get("state", {}).get(CALLER)
        refusal = self._refusal(scope, caller, headers)
        send = _with_headers(send, headers.get("host", ""), is_page=is_public(scope))
        try:
            if refusal is None:
                await self._app(scope, receive, send)
            elif scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": refusal[1]})
            else:
                await refuse(*refusal)(scope, receive, send)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # For other requests the app itself has answered and logged the error.
            if scope["type"] == "websocket":
                _LOG.error("a WebSocket failed", exc_info=error)

    def _refusal(
        self, scope: Scope, caller: Caller | None, headers: Headers
    ) -> tuple[int, str, str] | None:
        if not self._policy.is_addressed(headers):
            return (
                421,
                "the request is addressed to another host",
                "use the address that the controller printed",
            )
        if not self._policy.is_from_here(scope["scheme"], headers):
            return (
                403,
                "the request comes from a page of another site",
                "open the controller's own page",
            )
        if self._policy.knows(caller, headers):
            if caller is not None:
                caller.is_known()
            return None
        if is_public(scope):
            return None
        return (
            401,
            "the token is missing or wrong",
            "it is in the file token of the controller's directory",
        )


def refuse(status: int, message: str, hint: str) -> JSONResponse:
    """Return the answer to a refused request, with the reason."""
    headers = {"www-authenticate": 'Bearer realm="boincvm"'} if status == 401 else None
    document = {"error": {"message": message, "hint": hint, "code": int(ExitCode.USAGE)}}
    return JSONResponse(document, status, headers)


def _with_headers(send: Send, host: str, *, is_page: bool) -> Send:
    # In older browsers 'self' does not include WebSockets.
    sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    added = (
        *_FIXED_HEADERS,
        (b"content-security-policy", f"{_PAGE}{sockets}".encode()),
        (b"cache-control", b"no-cache" if is_page else b"no-store"),
    )

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            date = (b"date", email.utils.formatdate(usegmt=True).encode())
            message = {**message, "headers": [*message.get("headers", ()), *added, date]}
        await send(message)

    return sent


def token_in(path: Path) -> str:
    """Return the token in a file, which is created if needed. Raises OSError, HostError."""
    try:
        descriptor = open_descriptor(path, "x", permissions=0o600)
    except FileExistsError:
        with open_own(path) as file:
            token = file.read(_LONGEST_TOKEN).decode("ascii", "replace").strip()
        if token:
            return token
        path.unlink()  # its writer was killed
        return token_in(path)
    with os.fdopen(descriptor, "w") as file:
        token = secrets.token_urlsafe(32)
        file.write(token + "\n")
    return token
