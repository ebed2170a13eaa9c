"""Pack an image into one file, and unpack it into a store. The format: pack_format.py."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boincvm.errors import ImageDamagedError, UsageError
from boincvm.host.atomic_files import replacement
from boincvm.image.made_once import Made, check_space, failed, open_or_make
from boincvm.image.manifest import MANIFEST, ContentFile, Manifest
from boincvm.image.names import check_image_name
from boincvm.image.object_files import finish_object
from boincvm.image.pack_format import (
    MOST_IMAGE_BYTES,
    PIECE,
    Compression,
    Packer,
    Unpacker,
    damaged,
    reading,
)
from boincvm.image.progress import Progress
from boincvm.image.store import Image, ImageStore
from boincvm.image.target_file import check_target
from boincvm.sizes import format_size

_SUFFIXES = (".tar.gz", ".tgz", ".tar.xz", ".txz")
_XZ_SUFFIXES = (".tar.xz", ".txz")
PATCH_SUFFIX = ".patch"
MOST_PATCHES = 8
"""Patch files that may follow a packed image."""


def packed_name(path: Path) -> str:
    """Derive an image's name from the path of a packed image: its file name without the suffix.

    Capital letters become small ones, other invalid characters become `-`, and of a long name the
    end stays, because a version is usually there. Raises UsageError if nothing is left.
    """
    name = _without_suffix(path.name).lower()
    return check_image_name(re.sub(r"[^a-z0-9._-]", "-", name)[-64:].lstrip("._-").rstrip("."))


def patch_names(name: str) -> list[str]:
    """Return the names of the patch files that may follow the packed image `name`, in their order.

    There is one more than may be used.
    """
    own = _without_suffix(name)
    return [f"{own}.{number}{PATCH_SUFFIX}" for number in range(1, MOST_PATCHES + 2)]


def _without_suffix(name: str) -> str:
    suffix = next((one for one in _SUFFIXES if name.lower().endswith(one)), "")
    return name[: len(name) - len(suffix)]


def pack_image(
    image: Image, path: Path, *, force: bool = False, progress: Progress | None = None
) -> None:
    """Write `image` to `path`, completely or not at all; `force` replaces an existing file.

    A name that ends with .tar.xz or .txz asks for xz, any other for gzip. Raises UsageError,
    ImageDamagedError, HostDiskFullError, HostError.
    """
    progress = Progress(None) if progress is None else progress
    check_target(path, force=force)
    if path.name.lower().endswith(PATCH_SUFFIX):
        raise UsageError(
            f"found {path.name}, a patch file's name, expected one that ends with .tar.xz or"
            " .tar.gz",
            hint="a patch file needs the packed image that it follows: --since OLD",
        )
    check_packable(image)
    try:
        with replacement(path, is_unique=True) as part, part.open("xb") as stream:
            packer = Packer(stream, _compression_of(path))
            manifest = image.manifest.encode()
            packer.add(MANIFEST, len(manifest), iter([manifest]))
            for file in image.manifest.files:
                with progress.step(f"packing {file.name}, {format_size(file.size)}"):
                    packer.add(file.name, file.size, _checked_pieces(image, file))
            packer.finish()
    except OSError as error:
        raise failed(f"{path} cannot be written", error) from error


def _compression_of(path: Path) -> Compression:
    is_xz = path.name.lower().endswith(_XZ_SUFFIXES)
    return Compression.XZ if is_xz else Compression.GZIP


def check_packable(image: Image) -> None:
    """Check that others will take `image`. Raises UsageError, ImageDamagedError."""
    check_manifest(image)
    if image.manifest.size > MOST_IMAGE_BYTES:
        raise UsageError(
            f"image {image.name} has {format_size(image.manifest.size)}, which is too large to"
            " pack",
            hint=f"the maximum is {format_size(MOST_IMAGE_BYTES)}; build it with fewer packages",
        )


def check_manifest(image: Image) -> None:
    """Check that others will take the manifest of `image`. Raises UsageError, ImageDamagedError."""
    manifest = image.manifest
    if manifest.digest != image.digest:
        raise UsageError(
            f"image {image.name} would be refused wherever it is brought: its manifest is not"
            " canonical, as another version of boincvm may have written it",
            hint=f"build it again with this one: boincvm image build {image.name}",
        )
    if not manifest.is_canonical(manifest.encode()):
        raise UsageError(
            f"image {image.name} would be refused wherever it is brought: a name in its manifest"
            " has other characters than ASCII, a quotation mark or a backslash",
            hint=f"boincvm image inspect {image.name} shows it; build it with another name",
        )


def _checked_pieces(image: Image, file: ContentFile) -> Iterator[bytes]:
    """Read `file` and check its digest.

    An image that was altered since it was opened must not be shipped.
    """
    path = image.directory / file.name
    digest = hashlib.sha256()
    left = file.size
    with path.open("rb") as stream:
        while piece := stream.read(min(left, PIECE)):
            digest.update(piece)
            left -= len(piece)
            yield piece
    if left or digest.hexdigest() != file.sha256:
        raise ImageDamagedError(
            f"{path} of the image was altered",
            hint=f"boincvm image rm {image.name} && boincvm image build {image.name}",
        )


def packed_manifest(path: Path) -> Manifest:
    """Return the manifest of the packed image `path`; only its beginning is read.

    Raises ImageMissingError, ImageDamagedError, HostError.
    """
    with _unpacker(path) as unpacker:
        return unpacker.manifest()


def unpack_image(
    path: Path, name: str, store: ImageStore, *, progress: Progress | None = None
) -> str:
    """Unpack the image `path` into `store` as `name`, unless it is already there and sound.

    Waits for other processes that unpack into `store`. Returns the digest. Raises UsageError,
    ImageMissingError, ImageDamagedError, HostDiskFullError, HostError.
    """
    with open_packed(path, store, name, progress=progress) as image:
        return image.digest


def open_packed(
    path: Path, store: ImageStore, name: str | None = None, *, progress: Progress | None = None
) -> Image:
    """Open the packed image `path` as an image of `store`; unpack it first if it is missing there.

    Its name is by default `packed_name(path)`. This blocks: for some milliseconds if the image is
    there, otherwise for seconds. Raises the same errors as `unpack_image`.
    """
    name = packed_name(path) if name is None else check_image_name(name)
    progress = Progress(None) if progress is None else progress
    manifest = packed_manifest(path)

    def unpack(directory: Path) -> Made:
        with _unpacker(path) as unpacker:
            found = unpacker.manifest()
            check_space(store, found.size, name)
            _unpack_members(unpacker, found, directory, progress)
        finish_object(directory, found, lambda what: damaged(path, what))
        return Made(directory, found)

    needed = format_size(manifest.size)
    what = f"{path} cannot be unpacked into {store.root}, where it needs {needed}"
    return open_or_make(name, manifest.digest, store, unpack, what)


def unpack_files(path: Path, directory: Path, progress: Progress) -> None:
    """Unpack the files of the packed image `path`, without its manifest, into `directory`.

    Raises ImageMissingError, ImageDamagedError, HostError, OSError.
    """
    with _unpacker(path) as unpacker:
        _unpack_members(unpacker, unpacker.manifest(), directory, progress)


@contextmanager
def _unpacker(path: Path) -> Iterator[Unpacker]:
    """Open a packed image for reading. Raises ImageMissingError, ImageDamagedError, HostError."""
    with reading(path, damaged, "create it: boincvm image pack NAME FILE") as stream:
        yield Unpacker(stream, path)


def _unpack_members(
    unpacker: Unpacker, manifest: Manifest, directory: Path, progress: Progress
) -> None:
    for file in manifest.files:
        with progress.step(f"unpacking {file.name}, {format_size(file.size)}"):
            unpacker.unpack_file(file, directory / file.name)
    unpacker.expect_end()
