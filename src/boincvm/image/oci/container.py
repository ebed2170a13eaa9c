"""A container in an archive: which one it is, its settings, and its layers.

Formats: the OCI image specification 1.1 (image-layout.md, image-index.md, manifest.md, config.md),
and the `manifest.json` that `docker save` writes. Both can be in one archive; then the first is
used.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from boincvm.image.manifest import OciSettings
from boincvm.image.oci.archive import (
    AGAIN,
    Archive,
    Checked,
    Digest,
    Piece,
    check,
    decompressed,
    read_json,
    refused,
)
from boincvm.json_value import is_whole
from boincvm.tar_reader import Readable

MOST_LAYERS = 512
MOST_LAYER_BYTES = 16 << 30
"""The largest layer, in bytes, once it has been decompressed; compressed, too."""
MOST_SETTINGS = 128 << 10
"""The most bytes of all settings: a program's arguments and variables go to the guest at once."""
_MOST_IMAGES = 64
_DEEPEST_INDEX = 3
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_LAYERS = (
    *(f"application/vnd.oci.image.layer.v1.tar{kind}" for kind in ("", "+gzip", "+zstd")),
    *(
        f"application/vnd.oci.image.layer.nondistributable.v1.tar{kind}"
        for kind in ("", "+gzip", "+zstd")
    ),
    *(f"application/vnd.docker.image.rootfs.diff.tar{kind}" for kind in ("", ".gzip", ".zstd")),
)
_ONE = "save one image, like: docker save -o app.tar IMAGE"


class Layer(NamedTuple):
    """One layer in the archive."""

    piece: Piece
    digest: Digest | None
    """Of the layer as it lies in the archive, if the archive says it."""
    content: Digest
    """Of what is in it, decompressed."""
    name: str
    """For people."""


class Container(NamedTuple):
    """A container that can become an image."""

    architecture: str
    """Debian's name, which is that of OCI, too."""
    digest: Digest
    """Of its configuration, which names all its layers: what Docker calls the image's ID."""
    settings: OciSettings
    layers: tuple[Layer, ...]


class _Candidate(NamedTuple):
    name: str
    manifest: dict[str, object]


def read_container(archive: Archive, architecture: str) -> Container:
    """Return the only container for `architecture` in the archive. Raises ImageBuildError."""
    if archive.find("index.json") is not None:
        found = _of_layout(archive)
    elif archive.find("manifest.json") is not None:
        found = _of_docker(archive)
    else:
        raise refused(
            "it has neither index.json nor manifest.json",
            "it has to be what docker save, podman save, or skopeo copy to oci-archive: write; what"
            " docker export writes has no settings",
        )
    fitting = [one for _, one in found if one.architecture == architecture]
    if not fitting:
        others = sorted({one.architecture for _, one in found})
        advice = f"build it for that: --architecture {others[0]}" if others else _ONE
        raise refused(
            f"it has no container for {architecture}"
            + (f", but for {', '.join(others)}"[:200] if others else ""),
            advice,
        )
    if len({one.digest for one in fitting}) > 1:
        names = ", ".join(name for name, one in found if one.architecture == architecture)
        raise refused(f"it has several containers: {names[:300]}", _ONE)
    return fitting[0]


@contextmanager
def layer_content(archive: Archive, layer: Layer, directory: Path) -> Iterator[Readable]:
    """Open a layer's tar archive, decompressed; what is left unread is checked, too, at the end.

    `directory` takes temporary files. Raises ImageBuildError if a digest or size is wrong.
    """
    if layer.digest is not None:  # checked before anything unpacks it
        size, part = layer.piece.size, archive.open(layer.piece)
        Checked(part, layer.digest, f"the layer {layer.name}", most=size).finish()
    with decompressed(archive.open(layer.piece), directory) as stream:
        what = f"the content of the layer {layer.name}"
        content = Checked(stream, layer.content, what, most=MOST_LAYER_BYTES)
        yield content
        content.finish()


# An OCI layout.


def _of_layout(archive: Archive) -> list[tuple[str, Container]]:
    what = "index.json"
    index = _table(_json(archive, archive.require(what, "the index"), what), what)
    found: list[tuple[str, Container]] = []
    for candidate in _manifests(archive, index, "", _DEEPEST_INDEX):
        container = _of_manifest(archive, candidate)
        if container is not None:
            found.append((candidate.name, container))
        if len(found) > _MOST_IMAGES:
            raise refused(f"it has more than {_MOST_IMAGES} containers", _ONE)
    return found


def _manifests(
    archive: Archive, index: dict[str, object], name: str, depth: int
) -> Iterator[_Candidate]:
    """Yield the manifests that the index leads to, and that are in the archive.

    `docker save` names those of all architectures, but saves one.
    """
    if depth == 0:
        raise refused("its indexes are nested too deeply")
    for value in _entries(index.get("manifests"), "the index", _MOST_IMAGES):
        descriptor = _table(value, "the index")
        if not _may_fit(descriptor):
            continue
        digest, piece = _blob(archive, descriptor)
        if piece is None:
            continue
        kind = descriptor.get("mediaType")
        what = f"the blob {digest}"
        content = archive.small(piece, what)
        _check_size(descriptor, piece, what)
        check(content, digest, what)
        table = _table(read_json(content, what), what)
        called = _name_of(descriptor) or name or str(digest)[:19]
        if kind in _INDEXES:
            yield from _manifests(archive, table, called, depth - 1)
        elif kind in _MANIFESTS:
            yield _Candidate(called, table)
        else:
            raise refused(f"it has a manifest of an unknown type: {_shown(kind)}")


def _may_fit(descriptor: dict[str, object]) -> bool:
    """Tell whether it may be a container of Linux: attestations are for an unknown system."""
    platform = descriptor.get("platform")
    return not isinstance(platform, dict) or platform.get("os") in (None, "", "linux")


def _name_of(descriptor: dict[str, object]) -> str:
    annotations = descriptor.get("annotations")
    if isinstance(annotations, dict):
        for key in ("io.containerd.image.name", "org.opencontainers.image.ref.name"):
            name = annotations.get(key)
            if isinstance(name, str) and name.isprintable() and name.isascii():
                return name[:80]
    return ""


def _of_manifest(archive: Archive, candidate: _Candidate) -> Container | None:
    """Return the container of a manifest, or None if it is of another system."""
    what = "the manifest"
    descriptor = _table(candidate.manifest.get("config"), what)
    digest, piece = _blob(archive, descriptor)
    if piece is None:
        raise refused(f"it lacks the configuration {digest}", AGAIN)
    content = archive.small(piece, "the configuration")
    check(content, digest, "the configuration")
    described = _entries(candidate.manifest.get("layers"), what, MOST_LAYERS)
    config = _table(read_json(content, "the configuration"), "the configuration")
    if config.get("os") != "linux":
        return None
    layers: list[tuple[Piece, Digest | None, str]] = []
    for value in described:
        layer = _table(value, what)
        if layer.get("mediaType") not in _LAYERS:
            raise refused(f"it has a layer of an unknown type: {_shown(layer.get('mediaType'))}")
        layer_digest, layer_piece = _blob(archive, layer)
        name = layer_digest.digits[:12]
        if layer_piece is None:
            raise refused(f"it lacks the layer {name}", AGAIN)
        _check_size(layer, layer_piece, f"the layer {name}")
        layers.append((layer_piece, layer_digest, name))
    return _container(config, digest, layers)


def _blob(archive: Archive, descriptor: dict[str, object]) -> tuple[Digest, Piece | None]:
    digest = Digest.parse(descriptor.get("digest"))
    return digest, archive.find(f"blobs/{digest.algorithm}/{digest.digits}")


def _check_size(descriptor: dict[str, object], piece: Piece, what: str) -> None:
    size = descriptor.get("size")
    if not is_whole(size) or size != piece.size:
        raise refused(f"{what} has {piece.size} bytes, and should have {_shown(size)}")


# What `docker save` has written since ever.


def _of_docker(archive: Archive) -> list[tuple[str, Container]]:
    what = "manifest.json"
    found: list[tuple[str, Container]] = []
    listed = _json(archive, archive.require(what, "the manifest"), what)
    for value in _entries(listed, what, _MOST_IMAGES):
        table = _table(value, what)
        path = _text(table.get("Config"), what)
        content = archive.small(archive.require(path, "the configuration"), "the configuration")
        # Its file is named by its digest: HEX.json, or blobs/sha256/HEX.
        name = path.rpartition("/")[2].removesuffix(".json")
        digest = Digest.parse(f"sha256:{name}")
        check(content, digest, "the configuration")
        config = _table(read_json(content, "the configuration"), "the configuration")
        if config.get("os") != "linux":
            continue
        layers: list[tuple[Piece, Digest | None, str]] = []
        for entry in _entries(table.get("Layers"), what, MOST_LAYERS):
            layer = _text(entry, what)
            piece = archive.require(layer, "a layer")
            layers.append((piece, None, _shown(layer)[:80]))
        tags = table.get("RepoTags")
        tag = tags[0] if isinstance(tags, list) and tags else ""
        shown = tag if isinstance(tag, str) and tag.isprintable() and tag.isascii() else ""
        found.append((shown[:80] or name[:12], _container(config, digest, layers)))
    return found


# Both.


def _container(
    config: dict[str, object], digest: Digest, layers: list[tuple[Piece, Digest | None, str]]
) -> Container:
    what = "the configuration"
    contents = _entries(_table(config.get("rootfs"), what).get("diff_ids"), what, MOST_LAYERS)
    if len(contents) != len(layers):
        raise refused(f"it has {len(layers)} layers, and {what} names {len(contents)}")
    return Container(
        architecture=_text(config.get("architecture"), what)[:40],
        digest=digest,
        settings=_settings(config),
        layers=tuple(
            Layer(piece, of_layer, Digest.parse(content), name)
            for (piece, of_layer, name), content in zip(layers, contents, strict=True)
        ),
    )


def _settings(config: dict[str, object]) -> OciSettings:
    """Return what the container says of its programs."""
    what = "the configuration"
    asked = config.get("config")
    table = {} if asked is None else _table(asked, what)
    settings = OciSettings(
        environment=_texts(table.get("Env")),
        directory=_optional(table.get("WorkingDir")),
        user=_optional(table.get("User")),
        entrypoint=_texts(table.get("Entrypoint")),
        command=_texts(table.get("Cmd")),
    )
    for pair in settings.environment:
        name, sign, _ = pair.partition("=")
        if not (name and sign):
            raise refused(f"{what} has a variable without a value: {_shown(pair)}")
    if settings.directory and not settings.directory.startswith("/"):
        raise refused(f"its programs start in {_shown(settings.directory)}, no absolute path")
    size = sum(len(text.encode()) for text in settings.texts())
    if size > MOST_SETTINGS:
        raise refused(f"its variables and its command have {size} bytes, more than {MOST_SETTINGS}")
    return settings


def _json(archive: Archive, piece: Piece, what: str) -> object:
    return read_json(archive.small(piece, what), what)


def _table(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise refused(f"{what} lacks an object where one has to be")
    return {str(key): entry for key, entry in value.items()}


def _entries(value: object, what: str, most: int) -> Sequence[object]:
    if not isinstance(value, list):
        raise refused(f"{what} lacks a list where one has to be")
    if len(value) > most:
        raise refused(f"{what} has a list of {len(value)}, and at most {most} are taken")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise refused(f"{what} lacks a text where one has to be")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise refused(f"{what} has a text that no program can be given: {_shown(value)}")
    return value


def _optional(value: object) -> str:
    return "" if value is None else _text(value, "the configuration")


def _texts(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    what = "the configuration"
    return tuple(_text(entry, what) for entry in _entries(value, what, 4096))


def _shown(value: object) -> str:
    return ascii(value)[:100]
