"""Decides which index of published images, and so which image, is accepted."""

from dataclasses import dataclass
from threading import Event

from boincvm.errors import ImageDamagedError, ImageMissingError, UsageError
from boincvm.image.delivery import keys
from boincvm.image.delivery.index import (
    INDEX,
    KEY,
    MOST_BYTES,
    SIGNATURE,
    Index,
    Version,
    decode_index,
)
from boincvm.image.delivery.server import Server
from boincvm.image.delivery.sources import Source, Sources

_SIGNATURE_BYTES = 256
_PAUSE = 1.0
"""Seconds after which an index is read again whose signature is that of another one."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Why an image is accepted."""

    key: str | None = None
    """The publisher's public key; None: the one that is remembered for the address."""
    first_use: bool = False
    """Accept and remember the key that the address shows, if none is remembered for it."""
    digest: str | None = None
    """The image's digest, which the user has named: no signature is needed."""


REMEMBERED = Trust()
"""Only the key that is remembered for the address counts."""


def trusted_index(server: Server, sources: Sources, trust: Trust) -> Index:
    """Return the index if the key signed it and it is not older than one that was seen."""
    url = server.url
    known = sources.sources.get(url)
    known_key = None if known is None else keys.check_public(known.key)
    key = known_key if trust.key is None else keys.check_public(trust.key)
    if key is None:
        if not trust.first_use:
            raise UsageError(
                f"{url} is not trusted yet",
                hint="name its publisher's key (--key), or one image's digest (--digest); or take"
                " the key that it shows (--trust)",
            )
        shown = server.read(KEY, _SIGNATURE_BYTES).decode("ascii", "replace").strip()
        key = keys.check_public(shown)
    if known_key is not None and known_key != key:
        raise UsageError(
            f"{url} is known with another key, {known_key}",
            hint=f"ask its publisher; to trust the new key, remove the address from {sources.path}",
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


def choose_version(index: Index, name: str, digest: str | None, url: str) -> Version:
    versions = index.images.get(name, ())
    for version in reversed(versions):
        if digest is None or version.digest == digest:
            return version
    what = f"no image {name}" if not versions else f"no such version of image {name}"
    names = ", ".join(sorted(index.images))
    raise ImageMissingError(f"{url} has {what}", hint=f"it has: {names or 'no images'}")
