"""Decides which index of published images, and so which image, is accepted."""

from dataclasses import dataclass
from threading import Event

from boincvm.errors import ImageDamagedError, ImageMissingError, UsageError
from boincvm.image.delivery import key_changes, keys
from boincvm.image.delivery.index import (
    INDEX,
    KEY,
    MOST_BYTES,
    SIGNATURE,
    Index,
    Version,
    decode_index,
)
from boincvm.image.delivery.key_changes import (
    KEY_CHANGES,
    KeyChange,
    decode_changes,
    later_keys,
)
from boincvm.image.delivery.server import Server
from boincvm.image.delivery.sources import Source, Sources
from boincvm.image.progress import Progress

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


def trusted_index(server: Server, sources: Sources, trust: Trust, progress: Progress) -> Index:
    """Return the index if the key signed it and it is not older than one that was seen.

    A key that leads to the one that signed it (key_changes.py) is as good.
    """
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
        key = _later(server, known_key, key)
        if key is None:
            raise UsageError(
                f"{url} is known with another key, {known_key}",
                hint="ask its publisher; to trust the new key, remove the address from"
                f" {sources.path}",
            )
    data, signer = _signed_index(server, key)
    index = decode_index(data, url)
    if known is not None and index.serial < known.serial:
        raise ImageDamagedError(
            f"the index of {url} is an old one: number {index.serial}, "
            f"and number {known.serial} was seen before",
            hint="somebody may withhold updates; ask who publishes it",
        )
    if signer not in (key, known_key):
        progress.note(f"its publisher has replaced the key {key} by {signer}")
    sources.sources[url] = Source(signer, index.serial)
    return index


def _signed_index(server: Server, key: str) -> tuple[bytes, str]:
    """Return the index, and which key signed it: `key` or a later one."""
    # Who comes while a new index is put in its place may find the signature of another one.
    for is_again in (False, True):
        if is_again:
            Event().wait(_PAUSE)
        signature = server.read(SIGNATURE, _SIGNATURE_BYTES)
        data = server.read(INDEX, MOST_BYTES)
        if keys.is_signed(data, signature, key):
            return data, key
        for later in later_keys(_changes(server), key):
            if keys.is_signed(data, signature, later):
                return data, later
    raise ImageDamagedError(
        f"the index of {server.url} is not signed by {key}",
        hint="it was altered, or its publisher has another key; ask who publishes it",
    )


def _later(server: Server, one: str, other: str) -> str | None:
    """Return which of two keys the other one leads to; None if neither does."""
    changes = _changes(server)
    if other in later_keys(changes, one):
        return other
    return one if one in later_keys(changes, other) else None


def _changes(server: Server) -> tuple[KeyChange, ...]:
    try:
        data = server.read(KEY_CHANGES, key_changes.MOST_BYTES)
    except ImageMissingError:  # its publisher has had one key only
        return ()
    return decode_changes(data, f"{server.url}/{KEY_CHANGES}")


def choose_version(index: Index, name: str, digest: str | None, url: str) -> Version:
    versions = index.images.get(name, ())
    for version in reversed(versions):
        if digest is None or version.digest == digest:
            return version
    what = f"no image {name}" if not versions else f"no such version of image {name}"
    names = ", ".join(sorted(index.images))
    raise ImageMissingError(f"{url} has {what}", hint=f"it has: {names or 'no images'}")
