"""A swarm on loopback: a tracker, and peers that have a file, a part of it, or wrong content."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import libtorrent as lt

from boincvm.image.delivery.swarm import Sharing
from support.observed import LIMIT

HERE = Sharing(listen="127.0.0.1:0", start=LIMIT, window=LIMIT)
"""How a test downloads: from this computer only, and waiting for as long as a test waits."""
PIECE = 64 << 10
"""Bytes in a piece of a small file."""
_PEER = {
    "listen_interfaces": "127.0.0.1:0",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "webtorrent_stun_server": "",
    "allow_multiple_connections_per_ip": True,
    "stop_tracker_timeout": 1,
    "handshake_timeout": int(LIMIT),
}


class _Announce(BaseHTTPRequestHandler):
    server: "Tracker"

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query, encoding="latin-1")
        port, event = int(asked["port"][0]), asked.get("event", [""])[0]
        ports = self.server.announced(asked["info_hash"][0], port, event)
        peers = b"".join(bytes((127, 0, 0, 1)) + one.to_bytes(2) for one in ports if one != port)
        body = b"d8:intervali60e5:peers%d:%se" % (len(peers), peers)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *arguments: object) -> None:
        """Log nothing."""


class Tracker(ThreadingHTTPServer):
    """Tells peers of each other."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Announce)
        self._swarms: dict[str, set[int]] = {}
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/announce"

    def announced(self, swarm: str, port: int, event: str) -> list[int]:
        """Note a peer; return the ports of all."""
        with self._changed:
            ports = self._swarms.setdefault(swarm, set())
            if event == "stopped":
                ports.discard(port)
            else:
                ports.add(port)
            self._changed.notify_all()
            return sorted(ports)

    def wait_for(self, port: int) -> None:
        """Wait until a peer is known, under both hashes of its torrent."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: sum(port in ports for ports in self._swarms.values()) == 2, LIMIT
            )

    def handle_error(self, request: object, client_address: object) -> None:
        """A peer that has gone is no error here."""


@contextmanager
def tracking() -> Iterator[Tracker]:
    tracker = Tracker()
    thread = threading.Thread(target=tracker.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield tracker
    finally:
        tracker.shutdown()
        thread.join()
        tracker.server_close()


class Peer:
    """Shares the file of a torrent, of which it has `content`."""

    def __init__(
        self, torrent: Path, content: bytes, directory: Path, *, is_hostile: bool = False
    ) -> None:
        directory.mkdir()
        found = lt.load_torrent_buffer(torrent.read_bytes())
        assert found.ti is not None
        (directory / found.ti.name()).write_bytes(content)
        found.save_path = str(directory)
        found.url_seeds = []
        found.flags = lt.torrent_flags.seed_mode if is_hostile else 0
        # Who is hostile does not look at what it sends.
        self._session = lt.session({**_PEER, "disable_hash_checks": is_hostile}, 0)
        self._handle = self._session.add_torrent(found)

    @property
    def port(self) -> int:
        return self._session.listen_port()

    @property
    def uploaded(self) -> int:
        """Bytes of content that it has sent."""
        return self._handle.status().total_payload_upload

    def end(self) -> None:
        """End its connections, and wait for that."""
        del self._handle, self._session


@contextmanager
def sharing(
    tracker: Tracker,
    torrent: Path,
    content: bytes,
    directory: Path,
    *,
    is_hostile: bool = False,
) -> Iterator[Peer]:
    """Share a file with whom the tracker names, in the empty directory `directory`."""
    peer = Peer(torrent, content, directory, is_hostile=is_hostile)
    try:
        tracker.wait_for(peer.port)
        yield peer
    finally:
        peer.end()


def with_pieces(content: bytes, which: range) -> bytes:
    """Return content of which only the pieces with these numbers are right."""
    some = bytearray(len(content))
    for number in which:
        begin = number * PIECE
        some[begin : begin + PIECE] = content[begin : begin + PIECE]
    return bytes(some)
