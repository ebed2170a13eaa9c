"""update_bytes, update_bytes_far: what a volunteer downloads for a new version of sci, in MB.

The new version has three small packages more, in place of three that changed: pv, time, tree. For
update_bytes the host has the version before, from which a patch leads; for update_bytes_far it has
only `base`, of which the publisher knows nothing. The whole of a fetch from a web server on
loopback, without the headers of HTTP; compared with 0.7 MB, and with the packed image.
"""

import tempfile
from pathlib import Path

from benchmarks.file_server import serving
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
        with serving(www) as server:
            url = server.url
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
