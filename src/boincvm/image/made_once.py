"""Make an image in a store once, however many want it. Two paths beneath the store's root:

    unpack.lock    held by the process that makes one; others wait, and find the work done
    unpacking/     the part made so far; a killed process leaves it, the next one removes it

The object gets its place and its name when all of it is on the disk.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import (
    BoincvmError,
    HostDiskFullError,
    HostError,
    ImageDamagedError,
    ImageMissingError,
    host_error,
)
from boincvm.host import locks
from boincvm.host.files import free_space
from boincvm.image.manifest import Manifest
from boincvm.image.store import Image, ImageStore
from boincvm.sizes import format_size

_MARGIN = 16 << 20
"""Bytes of disk that must stay free when an image is made."""


class Made(NamedTuple):
    """A finished object, on the store's file system."""

    directory: Path
    manifest: Manifest


def open_or_make(
    name: str, digest: str, store: ImageStore, make: Callable[[Path], Made], what: str
) -> Image:
    """Open the image `digest` as `name` of `store`; if it is missing there, have `make` make it.

    `make` gets an empty directory and may raise OSError; `what` says in messages what that means.
    Waits for other processes that make one. Raises HostDiskFullError, HostError, and what `make`
    raises.
    """
    try:
        image = _named(store, name, digest)
        if image is not None:
            return image
        with scratch(store) as directory:
            image = _named(store, name, digest) or _renamed(store, name, digest)
            if image is None:  # no other process was quicker
                made = make(directory)
                store.publish(name, made.directory, made.manifest)
                image = _named(store, name, digest)
    except OSError as error:
        raise failed(what, error) from error
    if image is None:
        raise HostError(f"image {name} was replaced while it was being made", hint="try again")
    return image


@contextmanager
def scratch(store: ImageStore) -> Iterator[Path]:
    """Yield an empty directory, which is removed after the block, to the only one who has it.

    Raises OSError.
    """
    with locks.exclusive(store.root / "unpack.lock"):
        directory = store.root / "unpacking"
        remove(directory)
        directory.mkdir()
        try:
            yield directory
        finally:
            remove(directory)


def remove(directory: Path) -> None:
    """Remove a directory, if it exists, with all that is in it. Raises OSError."""
    import shutil  # here only: it brings three compressors into the wrapper's process

    if directory.exists():
        shutil.rmtree(directory)


def check_space(store: ImageStore, size: int, name: str) -> None:
    """Raise HostDiskFullError if the store's disk has no room for `size` bytes of image `name`."""
    free = free_space(store.root)
    if free < size + _MARGIN:
        raise HostDiskFullError(
            f"unpacking image {name} needs {format_size(size + _MARGIN)} of disk space, "
            f"and {store.root} has {format_size(free)}",
            hint="free some space and try again",
        )


def failed(what: str, error: OSError) -> BoincvmError:
    """Return the error to raise when the system refused something."""
    return host_error(what, error, hint="check the disk and the directory's permissions")


def _named(store: ImageStore, name: str, digest: str) -> Image | None:
    """Open the image if `name` stands for it, and it is sound."""
    try:
        image = store.open(name)
    except (ImageMissingError, ImageDamagedError):
        return None  # making it again repairs it
    if image.digest == digest:
        return image
    image.close()
    return None


def _renamed(store: ImageStore, name: str, digest: str) -> Image | None:
    """Give the image the name if the store has its content, perhaps only because that is in use."""
    try:
        image = store.open(name, digest)
    except (ImageMissingError, ImageDamagedError):
        return None
    try:
        store.publish(name, store.root / "unpacking" / "none", image.manifest)
    except BaseException:
        image.close()
        raise
    return image
