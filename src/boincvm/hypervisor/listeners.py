"""Sockets that a hypervisor connects a machine's lines to."""

import asyncio
import socket
from collections.abc import Sequence

from boincvm.errors import HypervisorError


async def accept_all(listeners: Sequence[socket.socket], limit: float) -> list[socket.socket]:
    """Return a connection to each listener.

    Raises HypervisorError if one has none within `limit` seconds.
    """
    loop = asyncio.get_running_loop()
    accepted: list[socket.socket] = []
    try:
        async with asyncio.timeout(limit):
            for listener in listeners:
                connection, _ = await loop.sock_accept(listener)
                accepted.append(connection)
    except BaseException as error:
        for each in accepted:
            each.close()
        if isinstance(error, TimeoutError):
            raise HypervisorError("the hypervisor did not connect the machine's lines") from None
        raise
    return accepted
