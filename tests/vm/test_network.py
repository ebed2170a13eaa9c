"""The guest has no network card unless one is asked for; then it reaches the host's network."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from support.command_line import boincvm

HOST_AS_SEEN_BY_THE_GUEST = "10.0.2.2"  # QEMU's user-mode network


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from the host\n")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Says nothing."""


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


def test_otherwise_there_is_no_network_card() -> None:
    done = boincvm("run", "--", "ls", "/sys/class/net")
    assert done.stdout.split() == ["lo"], done.stderr
