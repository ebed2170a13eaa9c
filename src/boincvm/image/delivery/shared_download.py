"""Downloads a published file from its swarm, if there is one, and what is missing by HTTP.

The server's part goes the way of all others (server.py), by the proxy and with its certificate
checked: libtorrent would read a web seed by rules of its own. Whatever has arrived is compared with
the index as usual.
"""

from pathlib import Path

from boincvm.errors import DISK_FULL, ImageDamagedError, ImageMissingError
from boincvm.image.delivery.download import download, retried_pieces
from boincvm.image.delivery.index import Torrent, torrent_name
from boincvm.image.delivery.server import Server, UnexpectedAnswerError
from boincvm.image.delivery.swarm import Sharing, download_from_peers
from boincvm.image.delivery.torrent_file import HINT, lacking, read_torrent
from boincvm.image.progress import Progress
from boincvm.sizes import format_size


class Source:
    """A web server, and those who share its files."""

    def __init__(self, server: Server, sharing: Sharing | None, progress: Progress) -> None:
        """Take nothing from peers if `sharing` is None."""
        self.server = server
        self.progress = progress
        self.from_peers = 0
        """Bytes that came from peers so far."""
        self._sharing = sharing

    def download(
        self, name: str, part: Path, size: int, sha256: str, torrent: Torrent | None
    ) -> None:
        """Download what is missing of a file, as `download` does."""
        sharing = None if torrent is None or part.exists() else self._sharing_now()
        if torrent is not None and sharing is not None:
            shared = part.with_suffix(".shared")
            try:
                if self._share(name, shared, size, torrent, sharing):
                    shared.rename(part)
            except (ImageDamagedError, ImageMissingError, UnexpectedAnswerError) as error:
                shared.unlink(missing_ok=True)
                self.progress.note(f"{error.message}; all is downloaded from {self.server.url}")
            except OSError as error:
                if error.errno in DISK_FULL:
                    shared.unlink(missing_ok=True)
                raise
        download(self.server, name, part, size, sha256, self.progress)

    def _sharing_now(self) -> Sharing | None:
        if self._sharing is None or self.server.is_behind_proxy():
            return None  # a proxy says that nobody else is to be reached
        reason = lacking()
        if reason:
            self.progress.note(f"without BitTorrent, libtorrent: {reason}; for it: {HINT}")
            self._sharing = None
        return self._sharing

    def _share(
        self, name: str, shared: Path, size: int, torrent: Torrent, sharing: Sharing
    ) -> bool:
        """Complete the file `shared`; return False if peers have nothing of it."""
        where = torrent_name(name)
        content = self.server.read(where, torrent.size)
        found = read_torrent(content, torrent, size, f"{self.server.url}/{where}")
        count, missing = download_from_peers(found, shared, sharing, self.progress)
        self.from_peers += count
        if missing == [(0, size)]:
            shared.unlink(missing_ok=True)
            self.progress.note(f"no peer has anything; all is downloaded from {self.server.url}")
            return False
        if missing:
            left = format_size(sum(end - begin for begin, end in missing))
            self.progress.note(f"peers were too slow; {left} is downloaded from {self.server.url}")
            with shared.open("r+b") as stream:
                for begin, end in missing:
                    stream.seek(begin)
                    for piece in retried_pieces(self.server, name, begin, end, size):
                        stream.write(piece)
        return True
