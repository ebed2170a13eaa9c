"""A server in a guest that a port of the host leads to, by `boincvm run --publish`."""

import os
import socket
import subprocess
from collections.abc import Mapping

from benchmarks.free_ports import free_port

from support.command_line import BOINCVM, LIMIT
from support.killed_on_failure import killed_on_failure

_SERVER = """
echo from the guest | busybox nc -l -p 8000 &
until grep -q :1F40 /proc/net/tcp*; do :; done
echo listening
wait
"""
"""It listens on the port 8000, which is 1F40 in the kernel's table."""


def check_published_port(*options: str, environment: Mapping[str, str] | None = None) -> None:
    """Run the server in a machine, and read what it sends; only 127.0.0.1 leads to it."""
    port = free_port()
    words = ["run", "--publish", f"{port}:8000", *options, "--", "sh", "-c", _SERVER]
    with killed_on_failure(
        subprocess.Popen(
            [BOINCVM, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        try:
            assert run.stdout.readline() == "listening\n", run.stderr.read()
            with socket.socket() as other:  # were it open on all addresses, it would be in use here
                other.bind(("127.0.0.2", port))
                other.listen()
            with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as connection:
                assert connection.makefile().read() == "from the guest\n"
            assert run.wait(LIMIT) == 0
        finally:
            run.terminate()
