"""Pack an image into one file, and unpack it into a store. The format: pack_format.py.

Unpacking uses two paths beneath the store's root:

    unpack.lock    held by the process that unpacks; others wait, and find the work done
    unpacking/     the part unpacked so far; a killed process leaves it, the next one removes it
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boincvm.errors import (
    BoincvmError,
    HostDiskFullError,
    HostError,
    ImageDamagedError,
    ImageMissingError,
    UsageError,
    host_error,
)
from boincvm.host import locks
from boincvm.host.atomic_files import replacement
from boincvm.host.files import free_space, open_descriptor, sync_directory
from boincvm.hypervisor.qcow2 import DiskRefusedError, check_disk
from boincvm.image.manifest import MANIFEST, ROOT, ContentFile, Manifest
from boincvm.image.names import check_image_name
from boincvm.image.pack_format import (
    MOST_IMAGE_BYTES,
    PIECE,
    Compression,
    Packer,
    Unpacker,
    damaged,
    finish_file,
)
from boincvm.image.progress import Progress
from boincvm.image.store import Image, ImageStore
from boincvm.image.target_file import check_target
from boincvm.sizes import format_size

_SUFFIXES = (".tar.gz", ".tgz", ".tar.xz", ".txz")
_XZ_SUFFIXES = (".tar.xz", ".txz")
_MARGIN = 16 << 20
"""Bytes of disk that must stay free when an image is unpacked."""


def packed_name(path: Path) -> str:
    """Derive an image's name from the path of a packed image: its file name without the suffix.

    Capital letters become small ones, other invalid characters become `-`, and of a long name the
    end stays, because a version is usually there. Raises UsageError if nothing is left.
    """
    name = path.name.lower()
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return check_image_name(re.sub(r"[^a-z0-9._-]", "-", name)[-64:].lstrip("._-").rstrip("."))


def pack_image(
    image: Image, path: Path, *, force: bool = False, progress: Progress | None = None
) -> None:
    """Write `image` to `path`, completely or not at all; `force` replaces an existing file.

    A name that ends with .tar.xz or .txz asks for xz, any other for gzip. Raises UsageError,
    ImageDamagedError, HostDiskFullError, HostError.
    """
    progress = Progress(None) if progress is None else progress
    check_target(path, force=force)
    check_manifest(image)
    if image.manifest.size > MOST_IMAGE_BYTES:
        raise UsageError(
            f"image {image.name} has {format_size(image.manifest.size)}, which is too large to"
            " pack",
            hint=f"the maximum is {format_size(MOST_IMAGE_BYTES)}; build it with fewer packages",
        )
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
        raise _host_error(f"{path} cannot be written", error) from error


def _compression_of(path: Path) -> Compression:
    is_xz = path.name.lower().endswith(_XZ_SUFFIXES)
    return Compression.XZ if is_xz else Compression.GZIP


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
    with _reading(path) as unpacker:
        return unpacker.manifest()


def unpack_image(
    path: Path, name: str, store: ImageStore, *, progress: Progress | None = None
) -> str:
    """Unpack the image `path` into `store` as `name`, unless it is already there and sound.

    Waits for other processes that unpack into `store`. Returns the digest. Raises UsageError,
    ImageMissingError, ImageDamagedError, HostDiskFullError, HostError.
    """
    check_image_name(name)
    with _open_unpacked(path, name, store, progress) as image:
        return image.digest


def open_packed(path: Path, store: ImageStore, *, progress: Progress | None = None) -> Image:
    """Open the packed image `path` as an image of `store`; unpack it first if it is missing there.

    Its name is `packed_name(path)`. This blocks: for some milliseconds if the image is there,
    otherwise for seconds. Raises the same errors as `unpack_image`.
    """
    return _open_unpacked(path, packed_name(path), store, progress)


@contextmanager
def _reading(path: Path) -> Iterator[Unpacker]:
    """Open a packed image for reading.

    Raises ImageMissingError, ImageDamagedError if `path` is not a file, HostError.
    """
    try:
        # A pipe without a writer must not block us for ever.
        descriptor = open_descriptor(path, wait=False)
    except FileNotFoundError as error:
        raise ImageMissingError(
            f"there is no file {path}", hint="create it: boincvm image pack NAME FILE"
        ) from error
    except OSError as error:
        raise _host_error(f"{path} cannot be read", error) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise damaged(path, "it is not a regular file")
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as stream:
            yield Unpacker(stream, path)
    finally:
        os.close(descriptor)


def _open_unpacked(path: Path, name: str, store: ImageStore, progress: Progress | None) -> Image:
    manifest = packed_manifest(path)
    progress = Progress(None) if progress is None else progress
    try:
        image = _present(store, name, manifest.digest)
        if image is not None:
            return image
        with locks.exclusive(store.root / "unpack.lock"):
            image = _present(store, name, manifest.digest)  # another process was quicker
            if image is None:
                _unpack(path, name, store, progress)
                image = _present(store, name, manifest.digest)
    except OSError as error:
        needed = format_size(manifest.size)
        what = f"{path} cannot be unpacked into {store.root}, where it needs {needed}"
        raise _host_error(what, error) from error
    if image is None:
        raise HostError(
            f"image {name} was replaced while {path} was being unpacked", hint="try again"
        )
    return image


def _present(store: ImageStore, name: str, digest: str) -> Image | None:
    try:
        image = store.open(name)
    except (ImageMissingError, ImageDamagedError):
        return None  # unpacking repairs it
    if image.digest == digest:
        return image
    image.close()
    return None


def _unpack(path: Path, name: str, store: ImageStore, progress: Progress) -> None:
    """Unpack an image. The caller holds the lock."""
    directory = store.root / "unpacking"
    _remove(directory)
    with _reading(path) as unpacker:
        manifest = unpacker.manifest()
        _check_space(store.root, manifest.size, name)
        directory.mkdir()
        try:
            _unpack_members(unpacker, manifest, directory, progress)
            try:
                check_disk(directory / ROOT)
            except DiskRefusedError as error:
                raise damaged(
                    path, f"its {ROOT} is refused: {error}".replace(f"{directory}/", "")
                ) from error
            with (directory / MANIFEST).open("xb") as stream:
                stream.write(manifest.encode())
                finish_file(stream)
            sync_directory(directory)
            store.publish(name, directory, manifest)
        finally:
            _remove(directory)


def unpack_files(path: Path, directory: Path, progress: Progress) -> None:
    """Unpack the files of the packed image `path`, without its manifest, into `directory`.

    Raises ImageMissingError, ImageDamagedError, HostError, OSError.
    """
    with _reading(path) as unpacker:
        _unpack_members(unpacker, unpacker.manifest(), directory, progress)


def _unpack_members(
    unpacker: Unpacker, manifest: Manifest, directory: Path, progress: Progress
) -> None:
    for file in manifest.files:
        with progress.step(f"unpacking {file.name}, {format_size(file.size)}"):
            unpacker.unpack_file(file, directory / file.name)
    unpacker.expect_end()


def _remove(directory: Path) -> None:
    import shutil  # here only: it brings three compressors into the wrapper's process

    if directory.exists():
        shutil.rmtree(directory)


def _check_space(directory: Path, size: int, name: str) -> None:
    free = free_space(directory)
    if free < size + _MARGIN:
        raise HostDiskFullError(
            f"unpacking image {name} needs {format_size(size + _MARGIN)} of disk space, "
            f"and {directory} has {format_size(free)}",
            hint="free some space and try again",
        )


def _host_error(what: str, error: OSError) -> BoincvmError:
    return host_error(what, error, hint="check the disk and the directory's permissions")
