"""A web server of a directory on loopback, which misbehaves as a test asks."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


class Request(BaseHTTPRequestHandler):
    """One request; `server` is the ImageServer."""

    protocol_version = "HTTP/1.1"
    server: "ImageServer"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        name = url.path.lstrip("/")
        self.server.proxied.append((url.netloc, self.headers.get("Proxy-Authorization", "")))
        self.server.asked.append((name, self.headers.get("Range", "")))
        for part, misbehave in self.server.faults.items():
            if part in name and misbehave(self, name):
                return
        path = self.server.directory / name
        if not path.is_file():
            self.send_error(404)
            return
        self.answer(path.read_bytes())

    def do_CONNECT(self) -> None:
        """Stand for a proxy that connects to a server of HTTPS, and for that server."""
        self.server.proxied.append((self.path, self.headers.get("Proxy-Authorization", "")))
        if self.server.security is None:
            self.send_error(403)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.flush()
        secure = self.server.security.wrap_socket(self.connection, server_side=True)
        self.connection = secure
        self.server.connections.append(secure)
        self.rfile, self.wfile = secure.makefile("rb"), secure.makefile("wb", 0)
        self.close_connection = False

    def answer(self, content: bytes, *, most: int | None = None, ranges: bool = True) -> None:
        """Send the content, or its part that was asked for; of its bytes at most `most`."""
        begin, end, asked = 0, len(content), self.headers.get("Range")
        if asked and ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin, end = int(first), int(last) + 1
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        part = content[begin:end]
        self.wfile.write(part if most is None else part[:most])
        self.server.sent += len(part)
        if most is not None:
            self.close_connection = True

    def finish(self) -> None:
        super().finish()
        if self.connection is not self.request:
            self.connection.close()

    def log_request(self, *arguments: object) -> None:
        """Log nothing."""

    log_error = log_request


Fault = Callable[[Request, str], bool]
"""Answers a request in its own way and returns True, or returns False to have it answered."""


class ImageServer(ThreadingHTTPServer):
    """Serves a directory until its context ends."""

    daemon_threads = False
    """Their end is waited for: none closes its connection in a later test."""

    def __init__(self, directory: Path, certified: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.directory = directory
        self._certified = certified
        self.faults: dict[str, Fault] = {}
        """What happens to requests with a text in their name."""
        self.asked: list[tuple[str, str]] = []
        self.proxied: list[tuple[str, str]] = []
        """For whom each request to a proxy is, and with which login; "" if it was to a server."""
        self.security: ssl.SSLContext | None = None
        """With which a proxy's servers of HTTPS prove who they are."""
        self.sent = 0
        self.ended = threading.Event()
        """Set at the end: what waits for ever waits for this."""
        self.connections: list[socket.socket] = []

    @property
    def url(self) -> str:
        scheme = "http" if self._certified is None else "https"
        return f"{scheme}://127.0.0.1:{self.server_port}"

    def names(self) -> list[str]:
        return [name for name, _ in self.asked]

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        if self._certified is not None:  # the request's own thread greets the client
            connection = self._certified.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        self.connections.append(connection)
        return connection, address

    def end(self) -> None:
        """End all connections, and wait for their threads."""
        self.ended.set()
        self.shutdown()
        for connection in self.connections:
            with suppress(OSError):  # it has been closed
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is no error here."""


@contextmanager
def serving(directory: Path, certified: ssl.SSLContext | None = None) -> Iterator[ImageServer]:
    """Serve the directory; by https if there are settings of TLS with a certificate."""
    server = ImageServer(directory, certified)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.end()
        thread.join()


def whole(server: ImageServer, name: str) -> bytes:
    return (server.directory / name).read_bytes()


def altered(request: Request, name: str) -> bool:
    content = bytearray(whole(request.server, name))
    content[len(content) // 2] ^= 1
    request.answer(bytes(content))
    return True


def truncated(request: Request, name: str) -> bool:
    """Answer as a web server does that has half of the file."""
    content = whole(request.server, name)
    content = content[: len(content) // 2]
    asked = request.headers.get("Range")
    first, _, last = (asked or "bytes=0-").removeprefix("bytes=").partition("-")
    if int(first) >= len(content):
        return refusing(416)(request, name)
    part = content[int(first) : int(last) + 1 if last else None]
    request.send_response(206 if asked else 200)
    if asked:
        end = int(first) + len(part) - 1
        request.send_header("Content-Range", f"bytes {first}-{end}/{len(content)}")
    request.send_header("Content-Length", str(len(part)))
    request.end_headers()
    request.wfile.write(part)
    return True


def other_range(request: Request, name: str) -> bool:
    """Answer with another part of the file than was asked for."""
    request.send_response(206)
    request.send_header("Content-Range", "bytes 0-9/10")
    request.send_header("Content-Length", "10")
    request.end_headers()
    request.wfile.write(bytes(10))
    return True


def refusing(status: int) -> Fault:
    def answer(request: Request, name: str) -> bool:
        request.send_response(status)
        request.send_header("Content-Length", "0")
        request.end_headers()
        return True

    return answer


def broken_off(times: int) -> Fault:
    left = [times]

    def answer(request: Request, name: str) -> bool:
        left[0] -= 1
        if left[0] < 0:
            return False
        request.answer(whole(request.server, name), most=50_000)
        return True

    return answer
