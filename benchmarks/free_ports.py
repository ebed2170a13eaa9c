"""Ports for servers that cannot choose one themselves."""

import random
import socket
from contextlib import ExitStack

_PORTS = range(12_000, 32_000)
"""Below those that systems give to callers which ask for any port: another test, which does, could
get one in the seconds until the server listens."""


def free_ports(count: int) -> list[int]:
    """Return ports at which nobody listens on 127.0.0.1."""
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < count:
            port = random.choice(_PORTS)
            taken = stack.enter_context(socket.socket())
            try:
                taken.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found


def free_port() -> int:
    """Return a port at which nobody listens on 127.0.0.1."""
    (port,) = free_ports(1)
    return port
