"""The connections of a server: who they are, how many, and how long they may ask for nothing.

Those that have not shown yet that they may come in are strangers. When there are too many of them
the oldest one goes, so that nobody who only holds connections keeps others out.
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
"""Seconds for the head of a request to come, and for what is sent after a refusal."""
CALLER = "caller"
"""The key of `Caller` in a scope's state."""


class ConnectionLimits:
    """All connections of one server."""

    def __init__(self, most_strangers: int = MOST_STRANGERS) -> None:
        self._most_strangers = most_strangers
        self._strangers: dict[Caller, None] = {}  # in the order in which they came
        self._known: set[Caller] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def enter(self, caller: "Caller") -> None:
        """Take up a new one, in the oldest stranger's place where there is none left."""
        self._strangers[caller] = None
        self._is_empty.clear()
        if len(self._strangers) > self._most_strangers:
            next(iter(self._strangers)).drop()

    def know(self, caller: "Caller") -> None:
        """Notice that it may do everything."""
        if caller in self._strangers:
            del self._strangers[caller]
            self._known.add(caller)
            if len(self._known) > MOST_KNOWN:
                caller.drop()

    def leave(self, caller: "Caller") -> None:
        """Let go of it; again is harmless."""
        self._strangers.pop(caller, None)
        self._known.discard(caller)
        if not self._strangers and not self._known:
            self._is_empty.set()

    def drop_all(self) -> None:
        """End all connections at once, whatever they do."""
        for caller in (*self._strangers, *self._known):
            caller.drop()

    async def until_empty(self) -> None:
        """Wait until the last one has left."""
        await self._is_empty.wait()


class Caller:
    """Who is at the other end of a connection. has_certificate: one that was verified."""

    def __init__(self, limits: ConnectionLimits, transport: asyncio.Transport) -> None:
        self._limits = limits
        self._transport = transport
        security = transport.get_extra_info("ssl_object")
        self.has_certificate = bool(security and security.getpeercert())

    def is_known(self) -> None:
        """Notice that it is no stranger."""
        self._limits.know(self)

    def drop(self) -> None:
        self._limits.leave(self)
        self._transport.abort()

    def leave(self) -> None:
        self._limits.leave(self)


def is_owner(transport: asyncio.Transport) -> bool:
    """Tell whether the process at the other end of a UNIX socket is this user's, or root's."""
    peer: socket.socket = transport.get_extra_info("socket")
    return peer_is_this_user(peer)


class HttpConnection(H11Protocol):
    """uvicorn's, for callers that are not trusted to ask, or to end what they have begun."""

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
        """Take up a connection; whoever may not enter is closed, unread."""
        if not self._may_enter(transport):
            transport.abort()
            return
        self._caller = Caller(self._limits, transport)
        self.app_state = {CALLER: self._caller}
        super().connection_made(transport)
        self._limits.enter(self._caller)
        self._look()

    def data_received(self, data: bytes) -> None:
        if self._caller is not None and not self.transport.is_closing():
            super().data_received(data)
            self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._caller is not None:
            self._end_deadline()
            self._caller.leave()
            super().connection_lost(exc)

    def shutdown(self) -> None:
        """Ends it when it has answered what was asked."""
        try:
            super().shutdown()
        except h11.LocalProtocolError:  # it has gone wrong before
            self.transport.close()

    def _look(self) -> None:
        """A caller has a request to ask, or time runs."""
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
    """A WebSocket; it begins as HTTP, and has the same caller."""

    def connection_lost(self, exc: Exception | None) -> None:
        caller: Caller = self.app_state[CALLER]
        caller.leave()
        super().connection_lost(exc)


def protocol_factory(
    limits: ConnectionLimits, config: Config, state: ServerState, *, owners_only: bool
) -> Callable[[], HttpConnection]:
    """For asyncio's servers."""
    may_enter: Any = is_owner if owners_only else _anybody
    return functools.partial(HttpConnection, limits, may_enter, config, state)


def _anybody(_transport: asyncio.Transport) -> bool:
    return True
