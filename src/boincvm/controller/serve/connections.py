"""Limit the connections of a server: who may connect, how many, and for how long they may idle.

Callers that have not authenticated yet are strangers. When there are too many of them, the oldest
one is dropped, so that nobody can keep others out by merely holding connections.
"""

import asyncio
import functools
import socket
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from boincvm.host.sockets import peer_is_this_user

MOST_STRANGERS = 256
MOST_KNOWN = 1024
REQUEST_LIMIT = 10.0
"""Seconds for the head of a request to arrive, and for what a client sends after a refusal."""
CALLER = "caller"
"""The key of the Caller in a scope's state."""


class ConnectionLimits:
    """The connections of one server, and how many there may be."""

    def __init__(self, most_strangers: int = MOST_STRANGERS) -> None:
        self._most_strangers = most_strangers
        self._strangers: dict[Caller, None] = {}  # in the order in which they came
        self._known: set[Caller] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def enter(self, caller: "Caller") -> None:
        """Add a new caller, dropping the oldest stranger if there are too many."""
        self._strangers[caller] = None
        self._is_empty.clear()
        if len(self._strangers) > self._most_strangers:
            next(iter(self._strangers)).drop()

    def know(self, caller: "Caller") -> None:
        """Record that a caller has authenticated."""
        if caller in self._strangers:
            del self._strangers[caller]
            self._known.add(caller)
            if len(self._known) > MOST_KNOWN:
                caller.drop()

    def leave(self, caller: "Caller") -> None:
        """Remove a caller; calling this again is harmless."""
        self._strangers.pop(caller, None)
        self._known.discard(caller)
        if not self._strangers and not self._known:
            self._is_empty.set()

    def drop_all(self) -> None:
        """Close all connections at once, whatever they are doing."""
        for caller in (*self._strangers, *self._known):
            caller.drop()

    async def until_empty(self) -> None:
        """Wait until the last caller has left."""
        await self._is_empty.wait()


class Caller:
    """The peer at the other end of a connection."""

    def __init__(self, limits: ConnectionLimits, transport: asyncio.Transport) -> None:
        self._limits = limits
        self._transport = transport
        security = transport.get_extra_info("ssl_object")
        self.has_certificate = bool(security and security.getpeercert())
        """The caller has a verified client certificate."""

    def is_known(self) -> None:
        """Record that the caller has authenticated."""
        self._limits.know(self)

    def drop(self) -> None:
        self._limits.leave(self)
        self._transport.abort()

    def leave(self) -> None:
        self._limits.leave(self)


def is_owner(transport: asyncio.Transport) -> bool:
    """Tell whether the process at the other end of a UNIX socket is this user's or root's."""
    peer: socket.socket = transport.get_extra_info("socket")
    return peer_is_this_user(peer)


class HttpConnection(H11Protocol):
    """uvicorn's HTTP connection, with a time limit for callers that send no request."""

    def __init__(
        self,
        limits: ConnectionLimits,
        may_enter: Callable[[asyncio.Transport], bool],
        config: Config,
        server_state: ServerState,
    ) -> None:
        super().__init__(config, server_state, {})
        self.ws_protocol_class = SocketConnection
        self._limits = limits
        self._may_enter = may_enter
        self._caller: Caller | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or close it unread if the caller may not enter."""
        if not self._may_enter(transport):
            transport.abort()
            return
        self._caller = Caller(self._limits, transport)
        self.app_state = {CALLER: self._caller}
        super().connection_made(transport)
        self._limits.enter(self._caller)
        self._check()

    def data_received(self, data: bytes) -> None:
        if self._caller is not None and not self.transport.is_closing():
            super().data_received(data)
            self._check()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._check()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._caller is not None:
            self._end_deadline()
            self._caller.leave()
            super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close the connection after the current request has been answered."""
        try:
            super().shutdown()
        except h11.LocalProtocolError:  # the connection has failed before
            self.transport.close()

    def _check(self) -> None:
        """Start the deadline if the caller owes us data, or stop it."""
        is_idle = self.conn.their_state is h11.IDLE
        is_refused = self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE
        if not is_idle and not is_refused:
            self._end_deadline()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_LIMIT, self.transport.abort)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class SocketConnection(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket; it begins as HTTP, and keeps that connection's caller."""

    def connection_lost(self, exc: Exception | None) -> None:
        caller: Caller = self.app_state[CALLER]
        caller.leave()
        super().connection_lost(exc)


def protocol_factory(
    limits: ConnectionLimits, config: Config, state: ServerState, *, owners_only: bool
) -> Callable[[], HttpConnection]:
    """Return a protocol factory for asyncio's servers."""
    may_enter: Any = is_owner if owners_only else _anybody
    return functools.partial(HttpConnection, limits, may_enter, config, state)


def _anybody(_transport: asyncio.Transport) -> bool:
    return True
