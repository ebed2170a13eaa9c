"""image_download, image_download_small: what a volunteer downloads for `base`, in MB.

The packed image (tar.xz) with Debian's kernel, and with ours; the kernel and the image with it are
built where they are missing, which takes minutes. The log has the parts, each packed by itself.
"""

import tempfile
from pathlib import Path

from benchmarks.results import Benchmark, Laboratory, Log, Result
from benchmarks.small_kernel import IMAGE
from boincvm.image.build import build_image
from boincvm.image.kernels.build import build_kernel
from boincvm.image.kernels.store import SMALL
from boincvm.image.pack import pack_image
from boincvm.image.pack_format import Compression, compressor
from boincvm.image.progress import Progress, to_standard_error
from boincvm.image.store import Image, ImageStore
from boincvm.machine.build_machine import booted

LIMIT, SMALL_LIMIT = 25.0, 12.0
"""MB."""


def _packed_size(image: Image, log: Log) -> float:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "image.tar.xz"
        pack_image(image, path, progress=Progress(None))
        size = path.stat().st_size / 1e6
    for file in image.manifest.files:
        packer = compressor(Compression.XZ)
        content = (image.directory / file.name).read_bytes()
        packed = len(packer.compress(content)) + len(packer.flush())
        log(f"{image.name}: {file.name} {file.size / 1e6:.2f} MB, packed {packed / 1e6:.2f} MB")
    log(f"{image.name}: packed {size:.2f} MB")
    return size


def _image_download(laboratory: Laboratory) -> list[Result]:
    size = _packed_size(laboratory.base, laboratory.log)
    return [Result("image_download", size, "MB", LIMIT, "a limit", 1.0)]


def _image_download_small(laboratory: Laboratory) -> list[Result]:
    progress = to_standard_error()
    build_kernel(SMALL, if_missing=True, progress=progress)
    build_image(IMAGE, kernel=SMALL, if_missing=True, boot=booted, progress=progress)
    with ImageStore().open(IMAGE) as image:
        size = _packed_size(image, laboratory.log)
    return [Result("image_download_small", size, "MB", SMALL_LIMIT, "a limit", 1.0)]


DEBIAN = Benchmark(("image_download",), _image_download)
OURS = Benchmark(("image_download_small",), _image_download_small)
