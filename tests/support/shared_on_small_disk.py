"""Run by a test on a small disk: download a torrent's file of SIZE bytes from peers on loopback.

    python -m support.shared_on_small_disk TORRENT SIZE FILE

Prints the number of the error by which it ends.
"""

import hashlib
import sys
from pathlib import Path

import libtorrent as lt

from boincvm.image.delivery.index import Torrent
from boincvm.image.delivery.swarm import download_from_peers
from boincvm.image.delivery.torrent_file import read_torrent
from boincvm.image.progress import Progress
from support.swarm import HERE

if __name__ == "__main__":
    content = Path(sys.argv[1]).read_bytes()
    swarm = str(lt.load_torrent_buffer(content).info_hashes.v2)
    named = Torrent(len(content), hashlib.sha256(content).hexdigest(), swarm)
    found = read_torrent(content, named, int(sys.argv[2]), "the torrent")
    try:
        download_from_peers(found, Path(sys.argv[3]), HERE, Progress(None))
    except OSError as error:
        print(error.errno)
