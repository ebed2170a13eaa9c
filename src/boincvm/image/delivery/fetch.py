"""Bring a published image into a store in the way that needs the fewest bytes.

    images/sources.json      whom this user trusts (sources.py)
    images/download.lock     held by the process that downloads; others wait
    images/downloads/        files that are not complete yet, and images that are being made

What has arrived stays for the next attempt, a week at most. Nothing is used before its digest is
found to be the one that a trusted index, or the user, has named.
"""

from contextlib import closing
from dataclasses import dataclass

from boincvm.errors import ImageDamagedError, ImageMissingError, UsageError, host_error
from boincvm.host import locks
from boincvm.host.own_files import make_directory
from boincvm.image.delivery.download import remove_old
from boincvm.image.delivery.index import INDEX, MOST_BYTES, Version, decode_index
from boincvm.image.delivery.server import (
    PATIENCE,
    Patience,
    Server,
    UnexpectedAnswerError,
    check_url,
)
from boincvm.image.delivery.shared_download import Source
from boincvm.image.delivery.sources import Origin, load_sources
from boincvm.image.delivery.swarm import Sharing
from boincvm.image.delivery.trust import REMEMBERED, Trust, choose_version, trusted_index
from boincvm.image.delivery.ways import as_whole, by_blocks, by_patch, by_start
from boincvm.image.names import check_image_name
from boincvm.image.progress import Progress
from boincvm.image.store import ImageStore
from boincvm.sizes import format_size

ON_DEMAND = "on demand"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was done."""

    name: str
    digest: str
    way: str
    """present, patch, blocks, whole, on demand, or skipped: an image that was not fetched has the
    name."""
    downloaded: int
    """Bytes of content that were downloaded, the index included."""
    whole: int
    """Bytes of the packed image."""
    from_peers: int = 0
    """Bytes among those downloaded that came by BitTorrent."""

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
        peers = f" ({format_size(self.from_peers)} from peers)" if self.from_peers else ""
        what = "starts on demand" if self.way == ON_DEMAND else "is here"
        return (
            f"image {self.name} {what}: {self.digest[:12]}; downloaded "
            f"{format_size(self.downloaded)}{peers}, as a whole {format_size(self.whole)}"
        )


def fetch_image(
    url: str,
    name: str,
    store: ImageStore,
    *,
    on_demand: bool = False,
    trust: Trust = REMEMBERED,
    patience: Patience = PATIENCE,
    sharing: Sharing | None = None,
    progress: Progress | None = None,
) -> Fetched:
    """Bring the newest version of the published image `name` into `store`, and remember `url`.

    `sharing`: how files are downloaded by BitTorrent where that is offered; None: not at all.
    `on_demand`: only what a machine starts with, unless all of it is here already.

    An image of a digest that the user has named is not remembered, and no longer updated. Waits for
    other downloads. Raises UsageError, ImageMissingError, ImageDamagedError, HostDiskFullError,
    HostError.
    """
    check_image_name(name)
    url = check_url(url)
    if on_demand and trust.digest is not None:
        raise UsageError(
            "found --on-demand with --digest, expected one of them",
            hint="parts of an image can only be checked by its publisher's signature: give --key",
        )
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
                index = trusted_index(server, sources, trust, progress)
                sources.save()
            else:
                index = decode_index(server.read(INDEX, MOST_BYTES), url)
            version = choose_version(index, name, trust.digest, url)
            source = Source(server, sharing, progress)
            way = _bring(source, version, name, store, on_demand=on_demand)
            if trust.digest is None:
                sources.images[name] = Origin(url, version.digest)
                sources.save()
            elif sources.images.pop(name, None) is not None:
                sources.save()  # an update must not replace what the user has chosen
            # The image before was held as long as the new one was made from it.
            store.collect()
            downloaded, whole = server.received + source.from_peers, version.packed_size
            return Fetched(name, version.digest, way, downloaded, whole, source.from_peers)
    except OSError as error:
        raise host_error(f"image {name} cannot be stored in {store.root}", error) from error


def update_image(
    name: str,
    store: ImageStore,
    *,
    skip_others: bool = False,
    patience: Patience = PATIENCE,
    sharing: Sharing | None = None,
    progress: Progress | None = None,
) -> Fetched:
    """Bring the newest version of an image that was fetched before; of a partial one, its start.

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
    return fetch_image(
        origin.url,
        name,
        store,
        on_demand=bool(digest) and store.is_partial(digest),
        patience=patience,
        sharing=sharing,
        progress=progress,
    )


def fetched_names(store: ImageStore) -> list[str]:
    """Return the names of the images that were fetched and are still there. Raises HostError."""
    return sorted(set(load_sources(store).images) & set(store.names()))


def _bring(
    source: Source, version: Version, name: str, store: ImageStore, *, on_demand: bool
) -> str:
    """Put a version into the store under `name`; return the way."""
    progress = source.progress
    downloads = store.root / "downloads"
    make_directory(downloads)
    remove_old(downloads)
    local = _local(store)
    if version.digest in local:
        try:
            with store.open(local[version.digest], partly=on_demand) as image:
                if _digest_of(store, name) != image.digest:
                    store.publish(name, downloads / "none", image.manifest)
                return "present"
        except (ImageMissingError, ImageDamagedError):
            if store.is_partial(version.digest):
                progress.note("a part of the image is here; the rest is downloaded")
            else:
                progress.note("the image is damaged; it is downloaded again")
                local.pop(version.digest)
    if on_demand:
        by_start(source.server, version, local, name, store, progress)
        return ON_DEMAND
    patches = [patch for patch in version.patches if patch.base in local]
    if patches:
        best = min(patches, key=lambda patch: patch.size)
        try:
            if best.size < version.packed_size:
                with store.open(local[best.base]) as base:
                    by_patch(source, version, best, base.directory, name, store)
                return "patch"
        except (ImageDamagedError, ImageMissingError, UnexpectedAnswerError) as error:
            progress.note(f"{error.message}; more is downloaded")
    if by_blocks(source.server, version, local, name, store, progress):
        return "blocks"
    as_whole(source, version, name, store)
    return "whole"


def _local(store: ImageStore) -> dict[str, str]:
    """Return the name of a local image for each digest."""
    found = {}
    for name in store.names():
        try:
            found[store.digest_of(name)] = name
        except (ImageMissingError, ImageDamagedError):
            continue  # it is of no use here; its user gets the error
    return found


def _digest_of(store: ImageStore, name: str) -> str:
    try:
        return store.digest_of(name)
    except (ImageMissingError, ImageDamagedError):
        return ""
