"""on_demand_bytes, on_demand_bytes_small: bytes until the first output of an app in `sci`, in MB.

A host without any image fetches `sci` on demand from a web server on loopback, and runs GMP-ECM in
it. All that comes until its output is there, and until the machine has ended, counts, but for the
headers of HTTP; it is compared with the image's size, and with the packed image. `small` is the
same image with our own kernel; the other one has Debian's.
"""

import subprocess
import tempfile
from pathlib import Path

from benchmarks.bare_machine import LIMIT
from benchmarks.environment import BOINCVM, clean_environment
from benchmarks.file_server import serving
from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.image.build import build_image
from boincvm.image.delivery.keys import make_key
from boincvm.image.delivery.publish import publish_images
from boincvm.image.kernels.build import build_kernel
from boincvm.image.kernels.store import SMALL
from boincvm.image.progress import to_standard_error
from boincvm.image.store import ImageStore
from boincvm.machine.build_machine import booted

IMAGE = "bench-sci-small"
TARGET = 0.15
NAMES = (
    "on_demand_bytes",
    "on_demand_packed",
    "on_demand_bytes_small",
    "on_demand_packed_small",
)


def _on_demand_bytes(laboratory: Laboratory) -> list[Result]:
    progress = to_standard_error()
    build_kernel(SMALL, if_missing=True, progress=progress)
    build_image(IMAGE, ("gmp-ecm",), kernel=SMALL, if_missing=True, boot=booted, progress=progress)
    return [
        *_measured(laboratory, NAMES[:2], "sci"),
        *_measured(laboratory, NAMES[2:], IMAGE),
    ]


def _measured(laboratory: Laboratory, names: tuple[str, ...], image: str) -> list[Result]:
    with tempfile.TemporaryDirectory(dir=laboratory.directory) as text:
        directory = Path(text)
        key = directory / "key.pem"
        public = make_key(key)
        _, (published,) = publish_images([image], directory / "www", key, ImageStore())
        environment = {**clean_environment(), "XDG_DATA_HOME": str(directory / "data")}
        environment.pop("BOINCVM_HOME", None)
        with serving(directory / "www") as server:
            fetch = ["fetch", "--on-demand", server.url, image, "--key", public]
            subprocess.run([BOINCVM, "image", *fetch], env=environment, check=True, timeout=LIMIT)
            begin = server.sent
            run = [BOINCVM, "run", "--image", image, "--", "ecm", "100"]
            done = subprocess.run(
                run, env=environment, input=b"91\n", capture_output=True, check=False,
                timeout=LIMIT,
            )  # fmt: skip
            if b"factor found" not in done.stdout.lower():  # ecm's exit code tells what it found
                raise RuntimeError(f"ecm has printed {done.stdout!r} and {done.stderr!r}")
            laboratory.log(
                f"{image}: {begin} bytes to start, {server.sent - begin} by the machine, in"
                f" {server.requests} requests"
            )
            value, version = server.sent / 1e6, published.version
            return [
                Result(names[0], value, "MB", version.size / 1e6, "the image", TARGET),
                Result(names[1], value, "MB", version.packed_size / 1e6, "the packed image"),
            ]


BENCHMARK = Benchmark(NAMES, _on_demand_bytes)
