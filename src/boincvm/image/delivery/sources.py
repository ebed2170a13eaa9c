"""Where images came from, and whom this user trusts there: images/sources.json.

    {"format": 1,
     "sources": {URL: {"key": PUBLIC KEY, "serial": THE HIGHEST SERIAL SEEN}},
     "images": {NAME: {"url": URL, "digest": OF THE VERSION THAT WAS FETCHED}}}

It is written while downloads are locked, by renaming.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from boincvm.errors import HostError
from boincvm.host.atomic_files import write_atomically
from boincvm.host.own_files import open_own
from boincvm.image.store import ImageStore
from boincvm.json_value import text, whole

FORMAT = 1
_MOST_BYTES = 1 << 20


@dataclass(slots=True)
class Source:
    """A directory of published images that is trusted."""

    key: str
    """The public key that signs its index."""
    serial: int = 0
    """The highest that was seen; an index with a lower one is old."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an image came from."""

    url: str
    digest: str = ""
    """The image's; empty if an earlier boincvm has fetched it and did not note it."""


@dataclass(slots=True)
class Sources:
    """All that is remembered."""

    path: Path
    sources: dict[str, Source] = field(default_factory=dict)
    """By URL."""
    images: dict[str, Origin] = field(default_factory=dict)
    """By the image's name."""

    def save(self) -> None:
        """Write all of it. Raises OSError."""
        document = {
            "format": FORMAT,
            "sources": {
                url: {"key": one.key, "serial": one.serial} for url, one in self.sources.items()
            },
            "images": {name: asdict(origin) for name, origin in self.images.items()},
        }
        write_atomically(self.path, json.dumps(document, indent=2) + "\n")


def load_sources(store: ImageStore) -> Sources:
    """Read what is remembered in `store`. Raises HostError."""
    path = store.root / "sources.json"
    try:
        with open_own(path) as stream:
            document = json.loads(stream.read(_MOST_BYTES))
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}")
        return Sources(
            path,
            {
                url: Source(text(one["key"]), whole(one["serial"]))
                for url, one in document["sources"].items()
            },
            {name: _origin(value) for name, value in document["images"].items()},
        )
    except FileNotFoundError:
        return Sources(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HostError(
            f"{path} cannot be read: {error}",
            hint="remove it; then fetch each image again, with its publisher's key",
        ) from error


def _origin(value: str | dict[str, object]) -> Origin:
    if isinstance(value, str):  # of an earlier boincvm
        return Origin(value)
    return Origin(text(value["url"]), text(value["digest"]))
