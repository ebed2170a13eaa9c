"""Torrents: files that tell programs for BitTorrent in which swarm a published file is shared.

They are hybrid ones (BEP 3 and BEP 52), so that any such program can share the files. Each has one
file, the trackers through which peers find each other, and the file's address on the web server,
for programs that take it from there (BEP 19). The package `libtorrent` is imported only where
torrents are used.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from boincvm.errors import HostError, ImageDamagedError, UsageError
from boincvm.image.delivery.index import MOST_TORRENT_BYTES, Torrent
from boincvm.image.delivery.server import check_url

if TYPE_CHECKING:
    from libtorrent import add_torrent_params

SMALLEST = 256 << 10
"""Bytes of a file for which it is worthwhile to look for peers."""
_LEAST_PIECE = 64 << 10
_MOST_PIECES = 1024
_MOST_TRACKERS = 8
_SCHEMES = ("http", "https", "udp")
_LEAST_VERSION = [2, 1]
HINT = "pip install 'boincvm[torrent]'"


@dataclass(frozen=True, slots=True)
class Offer:
    """What the torrents of a directory have in common."""

    url: str
    """The directory's address on the web."""
    trackers: tuple[str, ...]


def check_offer(url: str, trackers: tuple[str, ...]) -> Offer:
    """Return what torrents will say. Raises UsageError, HostError without libtorrent."""
    for tracker in trackers:
        if not _is_tracker(tracker):
            raise UsageError(
                f"{tracker!r} is not the address of a tracker",
                hint="give a URL like https://example.org/announce",
            )
    if not trackers or len(trackers) > _MOST_TRACKERS:
        raise UsageError(
            f"{len(trackers)} trackers cannot be named",
            hint=f"name 1 to {_MOST_TRACKERS}, through which peers find each other: --tracker URL",
        )
    reason = lacking()
    if reason:
        raise HostError(f"torrents need the Python package libtorrent: {reason}", hint=HINT)
    return Offer(check_url(url), trackers)


def lacking() -> str:
    """Return why torrents cannot be used here; empty: they can be."""
    try:
        import libtorrent
    except ImportError as error:
        return str(error)
    version = libtorrent.__version__
    numbers = [int(number) for number in version.split(".")[:2] if number.isdecimal()]
    return "" if numbers >= _LEAST_VERSION else f"version {version} is too old"


def _is_tracker(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    is_plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= 1000
    return is_plain and bool(host) and parts.scheme in _SCHEMES


def write_torrent(path: Path, name: str, target: Path, offer: Offer) -> Torrent:
    """Write to `target` the torrent of the file `path`, which is published as `name`.

    Equal files and offers give equal bytes. Raises OSError.
    """
    import libtorrent as lt

    size = path.stat().st_size
    piece = _LEAST_PIECE
    while piece * _MOST_PIECES < size:
        piece *= 2
    made = lt.create_torrent([lt.create_file_entry(path.name, size)], piece)
    made.set_creation_date(0)
    made.add_url_seed(f"{offer.url}/{name}")
    for tier, tracker in enumerate(offer.trackers):
        made.add_tracker(tracker, tier)
    try:
        lt.set_piece_hashes(made, str(path.parent))
    except RuntimeError as error:
        raise OSError(f"{path} cannot be read: {error}") from error
    content = lt.bencode(made.generate())
    target.write_bytes(content)
    found = lt.load_torrent_buffer(content).info_hashes
    return Torrent(len(content), hashlib.sha256(content).hexdigest(), str(found.v2))


def read_torrent(content: bytes, torrent: Torrent, size: int, where: str) -> "add_torrent_params":
    """Read the torrent of a file of `size` bytes; `where`: its address, for messages.

    Its address on the web is left out: we read it ourselves. Raises ImageDamagedError.
    """
    import libtorrent as lt

    if hashlib.sha256(content).hexdigest() != torrent.sha256 or len(content) > MOST_TORRENT_BYTES:
        raise ImageDamagedError(f"{where} is not what its index says")
    try:
        found = lt.load_torrent_buffer(content)
    except RuntimeError as error:
        raise ImageDamagedError(f"{where} cannot be read: {error}") from error
    info, trackers = found.ti, found.trackers
    if info is None or info.num_files() != 1 or info.total_size() != size:
        raise ImageDamagedError(f"{where} is the torrent of something else")
    if str(found.info_hashes.v2) != torrent.info_hash:
        raise ImageDamagedError(f"{where} is of another swarm than its index says")
    if len(trackers) > _MOST_TRACKERS or not all(map(_is_tracker, trackers)):
        raise ImageDamagedError(f"{where} names trackers that nobody asks")
    found.url_seeds = []
    found.http_seeds = []
    found.dht_nodes = []
    return found
