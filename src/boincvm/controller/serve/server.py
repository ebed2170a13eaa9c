"""The controller's HTTP server: uvicorn's connections in the caller's event loop.

uvicorn's own server is not used: it checks ten times a second whether it must stop.
"""

import asyncio
import logging
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import uvicorn
from uvicorn.server import ServerState

from boincvm.controller.controller import Controller
from boincvm.controller.serve.app import make_app
from boincvm.controller.serve.auth import Policy
from boincvm.controller.serve.connections import ConnectionLimits, protocol_factory
from boincvm.controller.serve.shutdown import Shutdown
from boincvm.errors import host_error
from boincvm.host.local_servers import LocalServer, serve_locally

GRACE = 2.0
"""Seconds that requests are given to end when the server stops."""
_TLS_LIMIT = 10.0
_BACKLOG = 128
_LONGEST_HEAD = 64 << 10
_LONGEST_MESSAGE = 1 << 20


class ListenAddress(NamedTuple):
    """Where to listen: at a UNIX socket, or at a host and port."""

    path: Path | None = None
    """A UNIX socket; None to listen at host and port."""
    host: str = "127.0.0.1"
    port: int = 0
    """0 lets the system choose one."""
    certificate: str = ""
    """A file, for TLS; empty for no TLS."""
    key: str = ""
    """The file of its key; empty if `certificate` contains the key."""
    client_authority: str = ""
    """The file of the authority whose certificates let clients in."""


class Server:
    """Serves `controller` at `address` to callers that `policy` lets in, from `open` to `close`."""

    def __init__(self, controller: Controller, address: ListenAddress, policy: Policy) -> None:
        self._address = address
        if address.path is None and policy.hosts:
            own = (address.host.lower(), socket.gethostname().lower())
            policy = policy._replace(hosts=(*policy.hosts, *own))
        self._shutdown = Shutdown()
        self._limits = ConnectionLimits()
        self._state = ServerState()
        self._app = make_app(controller, policy, self._shutdown)
        self._server: asyncio.Server | LocalServer | None = None

    async def open(self) -> tuple[str, int]:
        """Listen; return host and port, or the path and 0. Raises HostError."""
        address = self._address
        factory = protocol_factory(
            self._limits, self._config(), self._state, owners_only=address.path is not None
        )
        try:
            if address.path:
                self._server = await serve_locally(address.path, factory, backlog=_BACKLOG)
                return str(address.path), 0
            security = _security(address)
            listener = _tcp(address.host, address.port)
        except OSError as error:  # including SSLError
            raise host_error(
                "the controller cannot listen at"
                f" {address.path or f'{address.host}:{address.port}'}",
                error,
                hint="is it an address of this host, and free? do the certificate and key belong"
                " together?",
            ) from error
        loop = asyncio.get_running_loop()
        limit = _TLS_LIMIT if security else None
        self._server = await loop.create_server(
            factory, sock=listener, ssl=security, backlog=_BACKLOG, ssl_handshake_timeout=limit
        )
        name = listener.getsockname()
        return str(name[0]), int(name[1])

    def _config(self) -> uvicorn.Config:
        config = uvicorn.Config(
            self._app,
            ws="websockets-sansio",
            ws_max_size=_LONGEST_MESSAGE,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=_LONGEST_HEAD,
        )
        config.load()
        # It logs what clients do, who must not fill the log, or errors that our app has logged.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        return config

    async def close(self) -> None:
        """Stop serving: end all streams, and give other requests GRACE seconds.

        Calling this again is harmless.
        """
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        self._shutdown.end()
        await self._tasks_end(GRACE)
        for connection in list(self._state.connections):
            connection.shutdown()
        with suppress(TimeoutError):  # data for them may still be on its way
            async with asyncio.timeout(GRACE / 2):
                await self._limits.until_empty()
        self._limits.drop_all()
        for task in self._state.tasks:
            task.cancel()
        await self._tasks_end(GRACE)

    async def _tasks_end(self, limit: float) -> None:
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=limit)


def _security(address: ListenAddress) -> ssl.SSLContext | None:
    """Raises OSError."""
    if not address.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(address.certificate, address.key or None)
    if address.client_authority:
        context.load_verify_locations(address.client_authority)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)
