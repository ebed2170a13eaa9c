"""The controller's HTTP server: uvicorn, in the caller's event loop, on sockets of ours."""

import asyncio
import logging
import os
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from boincvm.controller.controller import Controller
from boincvm.controller.serve.app import make_app
from boincvm.controller.serve.gate import HAS_CERTIFICATE, Policy
from boincvm.errors import HostError
from boincvm.socket_paths import short_path

MOST_CONNECTIONS = 1024
_GRACE = 2
"""Seconds that requests have to end in when we do."""
_LONGEST_HEAD = 64 << 10
_LONGEST_MESSAGE = 1 << 20


class Place(NamedTuple):
    """Where to listen: `path` of a UNIX socket, or host and port (0 lets one be chosen).
    certificate, key: files, for TLS; client_authority: of the certificates that let clients in."""

    path: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    certificate: str = ""
    key: str = ""
    client_authority: str = ""


class _OwnersOnly(H11Protocol):
    """Closes what another user's process has opened, unread."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer: socket.socket = transport.get_extra_info("socket")
        told = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, user, _ = struct.unpack("3i", told)
        if user not in (0, os.geteuid()):
            transport.abort()


class _WithCertificates(H11Protocol):
    """Notes whether the client has shown a certificate, which has been verified then."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        security = transport.get_extra_info("ssl_object")
        shown = bool(security and security.getpeercert())
        self.app_state = {**self.app_state, HAS_CERTIFICATE: shown}


class _Uvicorn(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for the caller."""
        yield


class Server:
    """Serves `controller` at `place` to whom `policy` lets in, from `open` to `close`."""

    def __init__(self, controller: Controller, place: Place, policy: Policy) -> None:
        self._place = place
        self._app = make_app(controller, policy)
        self._uvicorn: _Uvicorn | None = None
        self._task: asyncio.Task[None] | None = None
        self._listener: socket.socket | None = None

    async def open(self) -> tuple[str, int]:
        """Listens; host and port, or the path and 0. Raises HostError."""
        place = self._place
        try:
            self._listener = _unix(place.path) if place.path else _tcp(place.host, place.port)
            protocol = _OwnersOnly if place.path else _WithCertificates
            config = uvicorn.Config(
                self._app,
                http=protocol,
                ws="websockets-sansio",
                ws_max_size=_LONGEST_MESSAGE,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
                h11_max_incomplete_event_size=_LONGEST_HEAD,
                timeout_graceful_shutdown=_GRACE,
                ssl_certfile=place.certificate or None,
                ssl_keyfile=place.key or None,
                ssl_ca_certs=place.client_authority or None,
                ssl_cert_reqs=ssl.CERT_OPTIONAL if place.client_authority else ssl.CERT_NONE,
            )
            config.load()
        except (OSError, ssl.SSLError) as error:
            self._close_listener()
            raise HostError(
                f"the controller cannot listen at {place.path or f'{place.host}:{place.port}'}:"
                f" {error.strerror or error}",
                hint="is the address this host's, and free? do the certificate's files fit?",
            ) from error
        # What it says of requests that we cancel is nobody's concern.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._uvicorn = _Uvicorn(config)
        self._task = asyncio.ensure_future(self._uvicorn.serve([self._listener]))
        if place.path:
            return str(place.path), 0
        name = self._listener.getsockname()
        return str(name[0]), int(name[1])

    async def close(self) -> None:
        """Nobody is served any more; again is harmless."""
        if self._uvicorn is not None and self._task is not None:
            self._uvicorn.should_exit = True
            await self._task
            self._task = None
        self._close_listener()

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            if self._place.path:
                self._place.path.unlink(missing_ok=True)


def _unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        with short_path(path) as short:
            listener.bind(short)
        path.chmod(0o600)
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def _tcp(host: str, port: int) -> socket.socket:
    return socket.create_server((host, port), backlog=128)
