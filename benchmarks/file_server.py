"""A web server of a directory on loopback, which counts what it sends."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Handler(BaseHTTPRequestHandler):
    """Serves files and ranges of them."""

    protocol_version = "HTTP/1.1"
    server: "FileServer"

    def do_GET(self) -> None:
        path = self.server.directory / self.path.lstrip("/")
        size = path.stat().st_size
        begin, end, asked = 0, size, self.headers.get("Range")
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin, end = int(first), int(last) + 1
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        with path.open("rb") as stream:
            stream.seek(begin)
            self.wfile.write(stream.read(end - begin))
        self.server.note(end - begin)

    def log_request(self, *_arguments: object) -> None:
        """Log nothing."""


class FileServer(ThreadingHTTPServer):
    """Serves a directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.directory = directory
        self.sent = 0
        """Bytes of content."""
        self.requests = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def note(self, count: int) -> None:
        """Count an answer."""
        with self._lock:
            self.sent += count
            self.requests += 1


@contextmanager
def serving(directory: Path) -> Iterator[FileServer]:
    """Serve a directory in the block."""
    with FileServer(directory) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
