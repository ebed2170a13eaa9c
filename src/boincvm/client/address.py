"""Where a client finds the controller, and how it connects.

BOINCVM_CONTROLLER  http://HOST:PORT, https://HOST:PORT or unix:PATH; by default the socket of
                    this user's own controller
BOINCVM_TOKEN       token for http and https; BOINCVM_TOKEN_FILE: a file that contains it
BOINCVM_CA          certificates that https trusts instead of the system's
BOINCVM_CERTIFICATE, BOINCVM_KEY    files of the client's own certificate
"""

import http.client
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from boincvm import paths
from boincvm.errors import HostError, UsageError
from boincvm.host.authorities import system_security
from boincvm.host.sockets import connect_blocking, keep_alive

SOCKET = "http.sock"
_PORT = 8080
_LONGEST_TOKEN = 4096
_EXPECTED = "expected http://HOST:PORT, https://HOST:PORT or unix:PATH"


class ControllerAddress(NamedTuple):
    """A controller's address: the `path` of a UNIX socket, or `host`, `port` and `token`."""

    path: Path | None
    host: str = "localhost"
    port: int = 0
    token: str = ""
    security: ssl.SSLContext | None = None
    """Settings of TLS; None for http."""

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.security else 'http'}://{host}:{self.port}"

    def connection(self, limit: float | None) -> http.client.HTTPConnection:
        """Return an unconnected connection.

        `limit` is the number of seconds that it may be silent, None for no limit.
        """
        if self.path is not None:
            return _UnixConnection(self.path, limit)
        if self.security is not None:
            return _TlsConnection(self.host, self.port, timeout=limit, context=self.security)
        return _TcpConnection(self.host, self.port, timeout=limit)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, limit: float | None) -> None:
        super().__init__("localhost", timeout=limit)
        self._path = path

    def connect(self) -> None:
        self.sock = connect_blocking(self._path, self.timeout)


class _TcpConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        keep_alive(self.sock)


class _TlsConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        keep_alive(self.sock)


def find_address(
    given: str | None = None, environment: Mapping[str, str] = os.environ
) -> ControllerAddress:
    """Find the controller; `given` overrides BOINCVM_CONTROLLER. Raises UsageError, HostError."""
    text = given or environment.get("BOINCVM_CONTROLLER", "")
    if not text:
        return ControllerAddress(paths.controller_directory() / SOCKET)
    if text.startswith("unix:"):
        return ControllerAddress(Path(text.removeprefix("unix:").removeprefix("//")))
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port or _PORT
    except ValueError as error:
        raise UsageError(f"found the controller {text[:100]!r}, {_EXPECTED}") from error
    is_bare = parts.path in ("", "/") and not parts.query and parts.username is None
    if parts.scheme not in ("http", "https") or not host or not is_bare:
        raise UsageError(f"found the controller {text[:100]!r}, {_EXPECTED}")
    security = _security(environment) if parts.scheme == "https" else None
    return ControllerAddress(None, host, port, _token(environment), security)


def _security(environment: Mapping[str, str]) -> ssl.SSLContext:
    authority = environment.get("BOINCVM_CA") or None
    certificate = environment.get("BOINCVM_CERTIFICATE")
    try:
        context = ssl.create_default_context(cafile=authority) if authority else system_security()
        if certificate:
            context.load_cert_chain(certificate, environment.get("BOINCVM_KEY") or None)
    except OSError as error:  # includes SSLError
        raise UsageError(
            f"the certificates cannot be used: {error.strerror or error}",
            hint="see BOINCVM_CA, BOINCVM_CERTIFICATE and BOINCVM_KEY",
        ) from error
    return context


def _token(environment: Mapping[str, str]) -> str:
    """Return the token, or "" if none is set: a certificate may suffice."""
    token = environment.get("BOINCVM_TOKEN", "")
    named = environment.get("BOINCVM_TOKEN_FILE", "")
    if not token and named:
        try:
            token = _read_token(Path(named))
        except OSError as error:
            raise HostError(f"the token file cannot be read: {error}") from error
    if not token.isascii() or not token.isprintable():
        raise UsageError("the token has invalid characters")
    return token


def _read_token(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(_LONGEST_TOKEN).strip()
