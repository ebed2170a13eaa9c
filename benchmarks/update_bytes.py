"""update_bytes, update_bytes_far: what a volunteer downloads for a new version of sci, in MB.

The new version has three small packages more, in place of three that changed: pv, time, tree. For
update_bytes the host has the version before, from which a patch leads; for update_bytes_far it has
only `base`, of which the publisher knows nothing. The whole of a fetch from a web server on
loopback, without the headers of HTTP; compared with 0.7 MB, and with the packed image.
"""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.image.build import build_image
from boincvm.image.delivery.fetch import Fetched, fetch_image
from boincvm.image.delivery.keys import make_key
from boincvm.image.delivery.publish import publish_images
from boincvm.image.delivery.trust import Trust
from boincvm.image.pack import pack_image, unpack_image
from boincvm.image.progress import Progress
from boincvm.image.store import ImageStore
from boincvm.machine.build_machine import booted

PACKAGES = ("gmp-ecm", "pv", "time", "tree")
"""None has a postinst script; the first makes an image configured, which is a large change."""
LIMIT = 0.7
"""MB."""


class _Handler(BaseHTTPRequestHandler):
    """Serves files and ranges of them."""

    protocol_version = "HTTP/1.1"
    server: "_Server"

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

    def log_request(self, *_arguments: object) -> None:
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.directory = directory


@contextmanager
def _serving(directory: Path) -> Iterator[str]:
    with _Server(directory) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _update_bytes(laboratory: Laboratory) -> list[Result]:
    with tempfile.TemporaryDirectory(dir=laboratory.directory) as name:
        directory = Path(name)
        key = directory / "key.pem"
        trust = Trust(make_key(key))
        www = directory / "www"
        client = ImageStore(directory / "client")
        built = ImageStore(directory / "built")
        build_image("sci", PACKAGES, boot=booted, progress=Progress(None), store=built)
        publish_images(["sci"], www, key, ImageStore())
        with _serving(www) as url:
            fetch_image(url, "sci", client, trust=trust)
            publish_images(["sci"], www, key, built)
            update = fetch_image(url, "sci", client, trust=trust)
            other = ImageStore(directory / "other")
            packed = directory / "base.tar.gz"
            pack_image(laboratory.base, packed)
            unpack_image(packed, "base", other)
            distant = fetch_image(url, "sci", other, trust=trust)
        return [
            Result("update_bytes", _megabytes(update), "MB", LIMIT, "a limit", 1.0),
            Result(
                "update_bytes_far",
                _megabytes(distant),
                "MB",
                distant.whole / 1e6,
                "the packed image",
            ),
        ]


def _megabytes(fetched: Fetched) -> float:
    return fetched.downloaded / 1e6


BENCHMARK = Benchmark(("update_bytes", "update_bytes_far"), _update_bytes)
