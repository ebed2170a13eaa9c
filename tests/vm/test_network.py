"""The guest has no network card unless one is requested; then it can reach the host's network."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from boincvm.exit_codes import ExitCode
from support.command_line import boincvm
from support.published_port import check_published_port

pytestmark = [pytest.mark.timeout(200), pytest.mark.usefixtures("base_image")]
HOST_AS_SEEN_BY_THE_GUEST = "10.0.2.2"  # QEMU's user-mode network


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from the host\n")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Log nothing."""


def test_a_guest_that_may_reaches_a_server_on_the_host() -> None:
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://{HOST_AS_SEEN_BY_THE_GUEST}:{server.server_port}/"
            done = boincvm("run", "--network", "--", "busybox", "wget", "-q", "-O", "-", address)
        finally:
            server.shutdown()
            thread.join()
    assert done.stdout == "from the host\n", done.stderr


def test_a_published_port_leads_into_the_guest() -> None:
    check_published_port()


def test_a_port_that_is_in_use() -> None:
    """Nothing starts, and no golden snapshot counts as bad."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = boincvm("run", "--publish", f"{port}:80", "--", "true")
    assert done.returncode == ExitCode.USAGE
    assert f"the port {port} of 127.0.0.1 cannot be used: Address already in use" in done.stderr


def test_otherwise_there_is_no_network_card() -> None:
    done = boincvm("run", "--", "ls", "/sys/class/net")
    assert done.stdout.split() == ["lo"], done.stderr
