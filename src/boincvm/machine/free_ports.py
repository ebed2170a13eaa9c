"""The check that ports of the host can be forwarded, before a machine starts.

A hypervisor that cannot have a port fails, as if what it starts from were bad, or goes on without.
"""

import socket
from collections.abc import Iterable

from boincvm.errors import UsageError
from boincvm.host.sockets import take_free_port_only
from boincvm.job.model import PortForward


def check_free(forwards: Iterable[PortForward]) -> None:
    """Check that nobody else has the ports of the host. Raises UsageError."""
    for forward in forwards:
        with socket.socket() as probe:
            take_free_port_only(probe)
            try:
                probe.bind(("127.0.0.1", forward.host))
            except OSError as error:
                raise UsageError(
                    f"the port {forward.host} of 127.0.0.1 cannot be used: {error.strerror}",
                    hint="choose another port for --publish, or end what uses it",
                ) from error
