"""The ways to make a published version of an image here.

By a patch, from blocks, as a whole; or only what a machine starts with, and the rest on demand.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from boincvm.errors import DISK_FULL, ImageDamagedError, ImageMissingError, UsageError
from boincvm.host.own_files import make_directory
from boincvm.image.delivery.blocks import (
    MOST_MAP_BYTES,
    RANGE_COST,
    find_local,
    make_image,
    missing_ranges,
    read_map,
)
from boincvm.image.delivery.download import (
    check_space,
    consumed,
    download,
    missing_bytes,
    retried_pieces,
)
from boincvm.image.delivery.index import Patch, Version
from boincvm.image.delivery.patch import apply_patch
from boincvm.image.delivery.root_part import RootPart, write_on_demand
from boincvm.image.delivery.server import Server, UnexpectedAnswerError
from boincvm.image.delivery.shared_download import Source
from boincvm.image.delivery.start_file import read_start
from boincvm.image.filenames import ON_DEMAND
from boincvm.image.manifest import Manifest
from boincvm.image.object_files import finish_object
from boincvm.image.pack import packed_manifest, unpack_image
from boincvm.image.progress import Progress
from boincvm.image.store import ImageStore
from boincvm.sizes import format_size

_MOST_SEARCHED = 4 << 30
"""Bytes of local images in which blocks are searched."""


def by_patch(
    source: Source,
    version: Version,
    patch: Patch,
    base: Path,
    name: str,
    store: ImageStore,
) -> None:
    progress = source.progress
    part = store.root / "downloads" / f"{patch.sha256}.part"
    check_space(store, missing_bytes(part, patch.size) + version.size, name)
    remote = version.patch_name(patch)
    with progress.step(f"downloading the difference of {name}, {format_size(patch.size)}"):
        try:
            source.download(remote, part, patch.size, patch.sha256, patch.torrent)
        except (ImageMissingError, UnexpectedAnswerError):
            _remove(part)  # another way is taken
            raise
    url = f"{source.server.url}/{remote}"
    with (
        consumed(part),
        progress.step(f"making {name}"),
        _object(store, version) as directory,
    ):
        with part.open("rb") as stream:
            manifest = apply_patch(stream, base, version.digest, directory, url)
        _publish(store, name, directory, version, manifest, url)


def by_blocks(
    server: Server,
    version: Version,
    local: Mapping[str, str],
    name: str,
    store: ImageStore,
    progress: Progress,
) -> bool:
    """Make a version from blocks of any local images; return False if that is not worthwhile."""
    offered = version.blocks
    if offered is None or not local or offered.map_size > MOST_MAP_BYTES:
        return False
    if offered.map_size > version.packed_size / 4:
        return False
    part = store.root / "downloads" / f"{offered.map_sha256}.part"
    fetched = store.root / "downloads" / f"{version.digest}.blocks"
    remote = f"{server.url}/{version.blocks_name}"
    try:
        with ExitStack() as held:
            with progress.step(f"downloading the map of {name}, {format_size(offered.map_size)}"):
                sizes = offered.map_size, offered.map_sha256
                download(server, version.map_name, part, *sizes, progress)
                wanted = read_map(part.read_bytes(), version.digest, remote)
                if wanted.size != offered.size:
                    raise ImageDamagedError(f"{remote} has another size than its map")
            with progress.step("searching the images of this host"):
                bases = _bases(store, local, version.architecture, held)
                found = find_local(wanted, [*bases, *([fetched] if fetched.exists() else [])])
            ranges = missing_ranges(wanted, found)
            missing = sum(end - begin for begin, end in ranges)
            cost = offered.map_size + missing + len(ranges) * RANGE_COST
            if cost >= version.packed_size:
                _remove(fetched, part)
                return False
            check_space(store, version.size + missing * 4, name)
            with progress.step(f"downloading blocks of {name}, {format_size(missing)}"):
                directory = held.enter_context(_object(store, version))

                def read(begin: int, end: int) -> Iterator[bytes]:
                    return retried_pieces(server, version.blocks_name, begin, end, wanted.size)

                make_image(wanted, found, read, fetched, directory, remote)
            _publish(store, name, directory, version, wanted.manifest, remote)
    except (ImageDamagedError, ImageMissingError, UnexpectedAnswerError) as error:
        _remove(fetched, part)
        progress.note(f"{error.message}; the whole image is downloaded")
        return False
    except OSError as error:
        if error.errno in DISK_FULL:
            _remove(fetched, part)
        raise
    _remove(fetched, part)
    return True


def _bases(
    store: ImageStore, local: Mapping[str, str], architecture: str, held: ExitStack
) -> list[Path]:
    """Return files of local images, which stay while they are `held`."""
    files: list[Path] = []
    total = 0
    for name in local.values():
        try:
            image = held.enter_context(store.open(name, partly=True))
        except (ImageDamagedError, ImageMissingError):
            continue  # its user gets the error
        if image.manifest.architecture == architecture:
            total += image.manifest.size
            if total > _MOST_SEARCHED:
                break
            files += [image.initrd, image.kernel, image.root]
    return files


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def by_start(
    server: Server,
    version: Version,
    local: Mapping[str, str],
    name: str,
    store: ImageStore,
    progress: Progress,
) -> None:
    """Make a partial image, whose root disk is read on demand."""
    start, blocks = version.start, version.blocks
    if start is None or blocks is None:
        raise UsageError(
            f"image {name} of {server.url} cannot be read on demand: it is too large, or was"
            " published by an earlier boincvm",
            hint="fetch all of it: leave --on-demand out",
        )
    part = store.root / "downloads" / f"{start.sha256}.part"
    check_space(store, missing_bytes(part, start.size) + version.packed_size, name)
    with progress.step(f"downloading what {name} starts with, {format_size(start.size)}"):
        download(server, version.start_name, part, start.size, start.sha256, progress)
    remote = f"{server.url}/{version.start_name}"
    with ExitStack() as held:
        held.enter_context(consumed(part))
        directory = held.enter_context(_object(store, version))
        with progress.step(f"making {name}"), part.open("rb") as stream:
            manifest, disk = read_start(stream, version.digest, blocks.size, directory, remote)
            write_on_demand(directory / ON_DEMAND, server.url, disk)
        with RootPart(directory, version.digest) as root:
            if local:
                with progress.step("searching the images of this host"):
                    root.seed(_bases(store, local, version.architecture, held))
            root.fetch_head(server)
        _publish(store, name, directory, version, manifest, remote)


def as_whole(source: Source, version: Version, name: str, store: ImageStore) -> None:
    progress = source.progress
    part = store.root / "downloads" / f"{version.packed_sha256}.part"
    check_space(store, missing_bytes(part, version.packed_size) + version.size, name)
    step = f"downloading {name}, {format_size(version.packed_size)}"
    with progress.step(step):
        source.download(
            version.packed_name, part, version.packed_size, version.packed_sha256, version.torrent
        )
    # A packed image is compared with its own manifest; that has to be the one that was meant.
    with consumed(part):
        if packed_manifest(part).digest != version.digest:
            raise ImageDamagedError(f"{source.server.url}/{version.packed_name} is another image")
        unpack_image(part, name, store, progress=progress)


@contextmanager
def _object(store: ImageStore, version: Version) -> Iterator[Path]:
    """Yield a new directory for an image, which is removed unless it was moved."""
    directory = store.root / "downloads" / version.digest
    if directory.exists():
        shutil.rmtree(directory)
    make_directory(directory)
    try:
        yield directory
    finally:
        if directory.exists():
            shutil.rmtree(directory)


def _publish(
    store: ImageStore,
    name: str,
    directory: Path,
    version: Version,
    manifest: Manifest,
    remote: str,
) -> None:
    """Give an image that was made in `directory`, from the file `remote`, its name."""
    if manifest.digest != version.digest:
        raise ImageDamagedError(f"{remote} makes another image")
    finish_object(directory, manifest, lambda what: ImageDamagedError(f"{remote}: {what}"))
    store.publish(name, directory, manifest)
