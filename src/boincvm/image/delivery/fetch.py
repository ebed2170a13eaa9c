"""Bring a published image into a store in the way that needs the fewest bytes.

    images/sources.json      whom this user trusts (sources.py)
    images/download.lock     held by the process that downloads; others wait
    images/downloads/        files that are not complete yet, and images that are being made

What has arrived stays for the next attempt, a week at most. Nothing is used before its digest is
found to be the one that a trusted index, or the user, has named.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from boincvm.errors import (
    DISK_FULL,
    HostDiskFullError,
    ImageDamagedError,
    ImageMissingError,
    UsageError,
    host_error,
)
from boincvm.host import locks
from boincvm.host.files import free_space, sync_directory
from boincvm.host.own_files import make_directory
from boincvm.hypervisor.qcow2 import DiskRefusedError, check_disk
from boincvm.image.delivery import keys
from boincvm.image.delivery.blocks import (
    MOST_MAP_BYTES,
    RANGE_COST,
    find_local,
    make_image,
    missing_ranges,
    read_map,
)
from boincvm.image.delivery.index import (
    INDEX,
    KEY,
    MOST_BYTES,
    SIGNATURE,
    Index,
    Patch,
    Version,
    decode_index,
)
from boincvm.image.delivery.patch import apply_patch
from boincvm.image.delivery.server import (
    PATIENCE,
    BrokenOffError,
    Patience,
    RangesIgnoredError,
    Server,
    UnexpectedAnswerError,
    check_url,
)
from boincvm.image.delivery.sources import Origin, Source, Sources, load_sources
from boincvm.image.manifest import MANIFEST, ROOT, Manifest
from boincvm.image.names import check_image_name
from boincvm.image.pack import packed_manifest, unpack_image
from boincvm.image.pack_format import finish_file
from boincvm.image.progress import Progress
from boincvm.image.store import ImageStore
from boincvm.sizes import format_size

_MARGIN = 16 << 20
"""Bytes of disk that stay free."""
_LONGEST_KEEP = 7 * 86400
"""Seconds that an incomplete download is kept."""
_ATTEMPTS = 5
"""Connections that may break off within one file."""
_PIECE = 1 << 20
_MOST_SEARCHED = 4 << 30
"""Bytes of local images in which blocks are searched."""
_SIGNATURE_BYTES = 256
_PAUSE = 1.0
"""Seconds after which an index is read again whose signature is that of another one."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was done."""

    name: str
    digest: str
    way: str
    """present, patch, blocks, whole, or skipped: an image that was not fetched has the name."""
    downloaded: int
    """Bytes of content that were downloaded, the index included."""
    whole: int
    """Bytes of the packed image."""

    @property
    def text(self) -> str:
        """Return a line for people."""
        if self.way == "skipped":
            return (
                f"image {self.name} stays: it is another one than was fetched, {self.digest[:12]};"
                f" to replace it: boincvm image update {self.name}"
            )
        if self.way == "present":
            return f"image {self.name} is the newest: {self.digest[:12]}"
        return (
            f"image {self.name} is here: {self.digest[:12]}; downloaded "
            f"{format_size(self.downloaded)}, as a whole {format_size(self.whole)}"
        )


@dataclass(frozen=True, slots=True)
class Trust:
    """Why an image is accepted."""

    key: str | None = None
    """The publisher's public key; None: the one that is remembered for the address."""
    first_use: bool = False
    """Accept and remember the key that the address shows, if none is remembered for it."""
    digest: str | None = None
    """The image's digest, which the user has named: no signature is needed."""


def fetch_image(
    url: str,
    name: str,
    store: ImageStore,
    *,
    trust: Trust = Trust(),
    patience: Patience = PATIENCE,
    progress: Progress | None = None,
) -> Fetched:
    """Bring the newest version of the published image `name` into `store`, and remember `url`.

    An image of a digest that the user has named is not remembered, and no longer updated. Waits for
    other downloads. Raises UsageError, ImageMissingError, ImageDamagedError, HostDiskFullError,
    HostError.
    """
    check_image_name(name)
    url = check_url(url)
    progress = Progress(None) if progress is None else progress
    try:
        make_directory(store.root)
        with (
            locks.exclusive(
                store.root / "download.lock",
                lambda: progress.note("waiting for another download to end"),
            ),
            closing(Server(url, patience)) as server,
        ):
            sources = load_sources(store)
            if trust.digest is None:
                index = _trusted_index(server, sources, trust)
                sources.save(store)
            else:
                index = decode_index(server.read(INDEX, MOST_BYTES), url)
            version = _version(index, name, trust.digest, url)
            way = _bring(server, version, name, store, progress)
            if trust.digest is None:
                sources.images[name] = Origin(url, version.digest)
                sources.save(store)
            elif sources.images.pop(name, None) is not None:
                sources.save(store)  # an update must not replace what the user has chosen
            # The image before was held as long as the new one was made from it.
            store.collect()
            return Fetched(name, version.digest, way, server.received, version.packed_size)
    except OSError as error:
        raise host_error(f"image {name} cannot be stored in {store.root}", error) from error


def update_image(
    name: str,
    store: ImageStore,
    *,
    skip_others: bool = False,
    patience: Patience = PATIENCE,
    progress: Progress | None = None,
) -> Fetched:
    """Bring the newest version of an image that was fetched before.

    `skip_others`: leave an image alone that got the name in another way since. Raises what
    `fetch_image` does.
    """
    check_image_name(name)
    origin = load_sources(store).images.get(name)
    if origin is None:
        raise UsageError(
            f"image {name} was not fetched from anywhere",
            hint=f"boincvm image fetch URL {name}, or build it again",
        )
    digest = _digest_of(store, name)
    if skip_others and digest and origin.digest and digest != origin.digest:
        return Fetched(name, digest, "skipped", 0, 0)
    return fetch_image(origin.url, name, store, patience=patience, progress=progress)


def fetched_names(store: ImageStore) -> list[str]:
    """Return the names of the images that were fetched and are still there. Raises HostError."""
    return sorted(set(load_sources(store).images) & set(store.names()))


def _trusted_index(server: Server, sources: Sources, trust: Trust) -> Index:
    """Return the index if the key signed it and it is not older than one that was seen."""
    url = server.url
    known = sources.sources.get(url)
    key = trust.key
    if key is None and known is not None:
        key = known.key
    if key is None:
        if not trust.first_use:
            raise UsageError(
                f"{url} is not trusted yet",
                hint="name its publisher's key (--key), or one image's digest (--digest); or take"
                " the key that it shows (--trust)",
            )
        shown = server.read(KEY, _SIGNATURE_BYTES).decode("ascii", "replace").strip()
        key = keys.check_public(shown)
    if known is not None and known.key != key:
        raise UsageError(
            f"{url} is known with another key, {known.key}",
            hint="ask its publisher; to trust the new key, remove the address from sources.json",
        )
    data = _signed_index(server, key)
    index = decode_index(data, url)
    if known is not None and index.serial < known.serial:
        raise ImageDamagedError(
            f"the index of {url} is an old one: number {index.serial}, "
            f"and number {known.serial} was seen before",
            hint="somebody may withhold updates; ask who publishes it",
        )
    sources.sources[url] = Source(key, index.serial)
    return index


def _signed_index(server: Server, key: str) -> bytes:
    # Who comes while a new index is put in its place may find the signature of another one.
    for is_again in (False, True):
        if is_again:
            Event().wait(_PAUSE)
        signature = server.read(SIGNATURE, _SIGNATURE_BYTES)
        data = server.read(INDEX, MOST_BYTES)
        if keys.is_signed(data, signature, key):
            return data
    raise ImageDamagedError(
        f"the index of {server.url} is not signed by {key}",
        hint="it was altered, or its publisher has another key; ask who publishes it",
    )


def _version(index: Index, name: str, digest: str | None, url: str) -> Version:
    versions = index.images.get(name, ())
    for version in reversed(versions):
        if digest is None or version.digest == digest:
            return version
    what = f"no image {name}" if not versions else f"no such version of image {name}"
    names = ", ".join(sorted(index.images))
    raise ImageMissingError(f"{url} has {what}", hint=f"it has: {names or 'no images'}")


def _local(store: ImageStore) -> dict[str, str]:
    """Return the name of a local image for each digest."""
    found = {}
    for name in store.names():
        try:
            found[store.digest_of(name)] = name
        except (ImageMissingError, ImageDamagedError):
            continue  # it is of no use here; its user gets the error
    return found


def _bring(
    server: Server, version: Version, name: str, store: ImageStore, progress: Progress
) -> str:
    """Put a version into the store under `name`; return the way."""
    downloads = store.root / "downloads"
    make_directory(downloads)
    _remove_old(downloads)
    local = _local(store)
    if version.digest in local:
        try:
            with store.open(local[version.digest]) as image:
                if _digest_of(store, name) != image.digest:
                    store.publish(name, downloads / "none", image.manifest)
                return "present"
        except (ImageMissingError, ImageDamagedError):
            progress.note("the image is damaged; it is downloaded again")
            local.pop(version.digest)
    patches = [patch for patch in version.patches if patch.base in local]
    if patches:
        best = min(patches, key=lambda patch: patch.size)
        try:
            if best.size < version.packed_size:
                with store.open(local[best.base]) as base:
                    _by_patch(server, version, best, base.directory, name, store, progress)
                return "patch"
        except (ImageDamagedError, ImageMissingError, UnexpectedAnswerError) as error:
            progress.note(f"{error.message}; more is downloaded")
    if _by_blocks(server, version, local, name, store, progress):
        return "blocks"
    _as_whole(server, version, name, store, progress)
    return "whole"


def _digest_of(store: ImageStore, name: str) -> str:
    try:
        return store.digest_of(name)
    except (ImageMissingError, ImageDamagedError):
        return ""


def _as_whole(
    server: Server, version: Version, name: str, store: ImageStore, progress: Progress
) -> None:
    part = store.root / "downloads" / f"{version.packed_sha256}.part"
    _check_space(store, _missing(part, version.packed_size) + version.size, name)
    step = f"downloading {name}, {format_size(version.packed_size)}"
    with progress.step(step):
        _download(
            server, version.packed_name, part, version.packed_size, version.packed_sha256, progress
        )
    # A packed image is compared with its own manifest; that has to be the one that was meant.
    with _used(part):
        if packed_manifest(part).digest != version.digest:
            raise ImageDamagedError(f"{server.url}/{version.packed_name} is another image")
        unpack_image(part, name, store, progress=progress)


@contextmanager
def _used(part: Path) -> Iterator[None]:
    """Remove a complete download after the block, unless that was interrupted."""
    try:
        yield
    except ImageDamagedError:
        part.unlink(missing_ok=True)
        raise
    part.unlink(missing_ok=True)


def _by_patch(
    server: Server,
    version: Version,
    patch: Patch,
    base: Path,
    name: str,
    store: ImageStore,
    progress: Progress,
) -> None:
    part = store.root / "downloads" / f"{patch.sha256}.part"
    _check_space(store, _missing(part, patch.size) + version.size, name)
    remote = version.patch_name(patch)
    with progress.step(f"downloading the difference of {name}, {format_size(patch.size)}"):
        _download(server, remote, part, patch.size, patch.sha256, progress)
    with (
        _used(part),
        progress.step(f"making {name}"),
        _object(store, version) as directory,
    ):
        with part.open("rb") as stream:
            manifest = apply_patch(
                stream, base, version.digest, directory, f"{server.url}/{remote}"
            )
        _publish(store, name, directory, version, manifest, f"{server.url}/{remote}")


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
    try:
        check_disk(directory / ROOT)
    except DiskRefusedError as error:
        raise ImageDamagedError(f"{remote} makes a disk that is refused: {error}") from error
    with (directory / MANIFEST).open("xb") as stream:
        stream.write(manifest.encode())
        finish_file(stream)
    sync_directory(directory)
    store.publish(name, directory, manifest)


def _by_blocks(
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
                _download(server, version.map_name, part, *sizes, progress)
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
            _check_space(store, version.size + missing * 4, name)
            with progress.step(f"downloading blocks of {name}, {format_size(missing)}"):
                directory = held.enter_context(_object(store, version))

                def read(begin: int, end: int) -> Iterator[bytes]:
                    return _retried(server, version.blocks_name, begin, end, wanted.size)

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


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _bases(
    store: ImageStore, local: Mapping[str, str], architecture: str, held: ExitStack
) -> list[Path]:
    """Return files of local images, which stay while they are `held`."""
    files: list[Path] = []
    total = 0
    for name in local.values():
        try:
            image = held.enter_context(store.open(name))
        except (ImageDamagedError, ImageMissingError):
            continue  # its user gets the error
        if image.manifest.architecture == architecture:
            total += image.manifest.size
            if total > _MOST_SEARCHED:
                break
            files += [image.directory / file.name for file in image.manifest.files]
    return files


def _retried(server: Server, name: str, begin: int, end: int, size: int) -> Iterator[bytes]:
    """Read a part of a file, also if the connection breaks off some times."""
    for attempt in range(_ATTEMPTS):
        try:
            for piece in server.pieces(name, begin, end, size):
                begin += len(piece)
                yield piece
        except BrokenOffError:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return


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


def _download(
    server: Server, name: str, part: Path, size: int, sha256: str, progress: Progress
) -> None:
    """Download what is missing of a file. A file that is not as its digest says is removed."""
    try:
        is_resumed = part.exists()
        if _complete(server, name, part, size, progress) == sha256:
            return
        part.unlink()
        # What was left of an earlier attempt may be at fault.
        if is_resumed and _complete(server, name, part, size, progress) == sha256:
            return
        part.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in DISK_FULL:
            part.unlink(missing_ok=True)  # others need the space more
        raise
    raise ImageDamagedError(
        f"{server.url}/{name} is not what its index says",
        hint="it was altered, or its server is broken; ask who publishes it",
    )


def _complete(server: Server, name: str, part: Path, size: int, progress: Progress) -> str:
    """Complete the file `part` and return its SHA-256. Raises BoincvmError, OSError."""
    with part.open("ab+") as stream:
        digest = hashlib.sha256()
        stream.seek(0)
        have = 0
        while have < size and (piece := stream.read(min(_PIECE, size - have))):
            digest.update(piece)
            have += len(piece)
        stream.truncate(have)
        failures = 0
        while have < size:
            try:
                for piece in server.pieces(name, have, size, size):
                    stream.write(piece)
                    digest.update(piece)
                    have += len(piece)
                    progress.detail(f"{format_size(have)} of {format_size(size)}")
            except RangesIgnoredError:
                stream.truncate(0)
                have, digest = 0, hashlib.sha256()
            except BrokenOffError:
                failures += 1
                if failures == _ATTEMPTS:
                    raise
            stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def _missing(part: Path, size: int) -> int:
    """Return how many of `size` bytes the incomplete file `part` lacks."""
    return max(0, size - (part.stat().st_size if part.exists() else 0))


def _check_space(store: ImageStore, size: int, name: str) -> None:
    free = free_space(store.root)
    if free < size + _MARGIN:
        raise HostDiskFullError(
            f"image {name} needs {format_size(size + _MARGIN)} of disk space, and {store.root}"
            f" has {format_size(free)}",
            hint="free some space and try again",
        )


def _remove_old(downloads: Path) -> None:
    """Remove what nobody has continued for long."""
    for path in downloads.iterdir():
        if path.is_dir():
            shutil.rmtree(path)  # what a killed process has left: we hold the lock
        elif path.stat().st_mtime < time.time() - _LONGEST_KEEP:
            path.unlink()
