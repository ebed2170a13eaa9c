"""index.json: what a directory of published images has. Format: docs/images.md.

The bytes are canonical, as a manifest's are. Files have their names from digests, so an index names
no path. Whatever an index says is bounded before it is used.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from boincvm.errors import BoincvmError, ImageDamagedError
from boincvm.image.names import check_image_name
from boincvm.image.pack_format import MOST_IMAGE_BYTES, Compression
from boincvm.json_value import text, whole

INDEX = "index.json"
SIGNATURE = "index.json.sig"
KEY = "key.txt"
"""The publisher's public key, for those who take it unseen."""
FORMAT = 1
MOST_BYTES = 1 << 20
MOST_IMAGES = 100
MOST_VERSIONS = 16
"""Of one image, in an index; and patches to one version."""
MOST_TORRENT_BYTES = 1 << 20
_ARCHITECTURES = ("amd64", "arm64")


@dataclass(frozen=True, slots=True)
class Torrent:
    """A file for BitTorrent, beside the file that it describes."""

    size: int
    sha256: str
    info_hash: str
    """Of version 2 of the protocol: the SHA-256 of what names the swarm."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A file that makes one version from an earlier one."""

    base: str
    """The digest of the earlier image."""
    size: int
    sha256: str
    torrent: Torrent | None = None


@dataclass(frozen=True, slots=True)
class Blocks:
    """A file of compressed blocks, and the map that tells which block is where."""

    size: int
    """Bytes of the blocks' file, which are verified one by one through the map."""
    map_size: int
    map_sha256: str


@dataclass(frozen=True, slots=True)
class Start:
    """A file with all that a machine needs to start and to read its disk on demand."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an image."""

    digest: str
    """The image's, which is the SHA-256 of its manifest."""
    architecture: str
    size: int
    """Bytes of the image's files."""
    packed_size: int
    packed_sha256: str
    patches: tuple[Patch, ...] = ()
    blocks: Blocks | None = None
    torrent: Torrent | None = None
    """Of the packed image."""
    start: Start | None = None
    compression: Compression = Compression.GZIP
    """The packed image's; gzip is not written down."""

    @property
    def packed_name(self) -> str:
        return f"images/{self.digest}{self.compression.suffix}"

    @property
    def map_name(self) -> str:
        return f"images/{self.digest}.map"

    @property
    def blocks_name(self) -> str:
        return blocks_name(self.digest)

    @property
    def start_name(self) -> str:
        return f"images/{self.digest}.start"

    def patch_name(self, patch: Patch) -> str:
        return f"patches/{patch.base}-{self.digest}.patch"

    def files(self) -> set[str]:
        """Return the names of its files."""
        names = {self.packed_name, *(self.patch_name(patch) for patch in self.patches)}
        offered = [(self.packed_name, self.torrent)]
        offered += [(self.patch_name(patch), patch.torrent) for patch in self.patches]
        names |= {torrent_name(name) for name, torrent in offered if torrent is not None}
        if self.blocks is not None:
            names |= {self.map_name, self.blocks_name}
        return names if self.start is None else names | {self.start_name}


def blocks_name(digest: str) -> str:
    """Return the name of the file of blocks of that image."""
    return f"images/{digest}.blocks"


def torrent_name(name: str) -> str:
    """Return the name of the torrent of the file `name`."""
    return f"{name}.torrent"


@dataclass(frozen=True, slots=True)
class Index:
    """All that a directory has."""

    serial: int
    """Greater than that of every earlier index of the directory."""
    images: Mapping[str, tuple[Version, ...]] = field(default_factory=dict)
    """The versions of each image, the newest last."""

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        images = {name: [_table(one) for one in found] for name, found in self.images.items()}
        document = {"format": FORMAT, "serial": self.serial, "images": images}
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n"

    def files(self) -> set[str]:
        """Return the names of all files that it describes."""
        return {name for found in self.images.values() for one in found for name in one.files()}


def _table(version: Version) -> dict[str, object]:
    table = asdict(version)
    for one in (table, *table["patches"]):
        for key in ("blocks", "start", "torrent"):
            if one.get(key, 0) is None:
                del one[key]
    if version.compression is Compression.GZIP:
        del table["compression"]
    return table


def decode_index(data: bytes, where: str) -> Index:
    """Decode an index that came from `where`. Raises ImageDamagedError."""
    try:
        if len(data) > MOST_BYTES:
            raise ValueError("it is too large")
        document = _object(json.loads(data))
        if document.get("format") != FORMAT:
            raise ValueError(f"format {document.get('format')!r}, expected {FORMAT}")
        images = _object(document.get("images"))
        if len(images) > MOST_IMAGES:
            raise ValueError("it has too many images")
        decoded = {check_image_name(name): _versions(value) for name, value in images.items()}
        index = Index(whole(document.get("serial")), decoded)
        if index.encode() != data:
            raise ValueError("it is not canonical")
    except (ValueError, RecursionError, BoincvmError) as error:
        raise ImageDamagedError(
            f"the index of {where} cannot be read: {error}",
            hint="it may need a newer boincvm; else ask who publishes it",
        ) from error
    return index


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError("an object is missing or invalid")  # noqa: TRY004 - what the file says
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list) or len(value) > MOST_VERSIONS:
        raise ValueError("a list is missing, invalid or too long")
    return value


def _digest(value: object) -> str:
    digest = text(value)
    if len(digest) != 64 or digest.strip("0123456789abcdef"):
        raise ValueError("a digest is invalid")
    return digest


def _versions(value: object) -> tuple[Version, ...]:
    versions = tuple(_version(_object(item)) for item in _list(value))
    if not versions:
        raise ValueError("an image has no version")
    return versions


def _version(table: dict[str, object]) -> Version:
    architecture = text(table.get("architecture"))
    if architecture not in _ARCHITECTURES:
        raise ValueError("an architecture is unknown")
    return Version(
        digest=_digest(table.get("digest")),
        architecture=architecture,
        size=whole(table.get("size"), MOST_IMAGE_BYTES),
        packed_size=whole(table.get("packed_size"), MOST_IMAGE_BYTES),
        packed_sha256=_digest(table.get("packed_sha256")),
        patches=tuple(_patch(_object(item)) for item in _list(table.get("patches"))),
        blocks=_blocks(_object(table["blocks"])) if "blocks" in table else None,
        torrent=_torrent(table),
        start=_start(_object(table["start"])) if "start" in table else None,
        compression=Compression(text(table["compression"]))
        if "compression" in table
        else Compression.GZIP,
    )


def _patch(table: dict[str, object]) -> Patch:
    size = whole(table.get("size"), MOST_IMAGE_BYTES)
    return Patch(_digest(table.get("base")), size, _digest(table.get("sha256")), _torrent(table))


def _torrent(table: dict[str, object]) -> Torrent | None:
    """Return the torrent of what `table` describes, if it has one."""
    if "torrent" not in table:
        return None
    found = _object(table["torrent"])
    size = whole(found.get("size"), MOST_TORRENT_BYTES)
    return Torrent(size, _digest(found.get("sha256")), _digest(found.get("info_hash")))


def _start(table: dict[str, object]) -> Start:
    return Start(whole(table.get("size"), MOST_IMAGE_BYTES), _digest(table.get("sha256")))


def _blocks(table: dict[str, object]) -> Blocks:
    size, map_size = (whole(table.get(key), MOST_IMAGE_BYTES) for key in ("size", "map_size"))
    return Blocks(size, map_size, _digest(table.get("map_sha256")))
