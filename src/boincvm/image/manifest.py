"""manifest.json: the contents of an image. Its SHA-256 is the image's digest.

The bytes are canonical (sorted keys, no spaces, ASCII, a newline at the end), so equal images have
equal digests wherever they were built. Format: docs/images.md.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote_to_bytes

from boincvm.errors import ImageDamagedError
from boincvm.image.filenames import INITRD as INITRD
from boincvm.image.filenames import KERNEL as KERNEL
from boincvm.image.filenames import MANIFEST as MANIFEST
from boincvm.image.filenames import ROOT as ROOT
from boincvm.json_value import is_whole

FORMAT = 1
MOST_BYTES = 2 << 20
"""The largest manifest, in bytes. JSON of that size takes at most some 40 MiB in memory."""
_OPTIONAL = ("kernel", "pip", "own_files", "recommends", "script", "memory", "container")
"""Keys of a recipe that are left out where they say nothing."""
_SAFE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in '"%\\')
_LARGEST = (1 << 63) - 1
"""The largest number in a manifest; an image that would be too large is refused with its size."""


@dataclass(frozen=True, slots=True)
class Package:
    """A Debian package in the image."""

    name: str
    version: str
    architecture: str
    scripts: bool
    """The package has a postinst script, which has run if the image is configured."""


@dataclass(frozen=True, slots=True)
class ContentFile:
    """One file of the image."""

    name: str
    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What was asked for. Two builds of one recipe differ only in the packages' versions."""

    version: int
    """The version of the builder's own rules."""
    suite: str
    packages: tuple[str, ...]
    guest: str
    """SHA-256 of the sources that go into the image."""
    kernel: str = ""
    """SHA-256 of the kernel that `boincvm image kernel build` made; empty for Debian's."""
    pip: tuple[str, ...] = ()
    """Packages of PyPI."""
    own_files: tuple[str, ...] = ()
    """The paths of the user's own files, each with a colon and a digest."""
    recommends: bool = False
    """Whether packages come that others recommend."""
    script: str = ""
    """SHA-256 of the script that ran as the image was built."""
    memory: int = 0
    """Bytes of memory that the recipe asks for."""
    container: str = ""
    """The digest of the container's configuration, if the image was made of a container."""


@dataclass(frozen=True, slots=True)
class OciSettings:
    """What a container says of its programs (OCI image specification, config.md)."""

    environment: tuple[str, ...] = ()
    """NAME=VALUE each."""
    directory: str = ""
    """Where its own command starts; empty for /."""
    user: str = ""
    """Whom its own command runs as, by name or number."""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    """Follows the entry point: its own command is both."""

    def texts(self) -> tuple[str, ...]:
        """Return all texts in it."""
        lists = (*self.environment, *self.entrypoint, *self.command)
        return (*lists, self.directory, self.user)

    def table(self) -> dict[str, object]:
        """Return what stands in a manifest: all texts percent-encoded (RFC 3986, 2.1).

        So they are printable ASCII, without quotation marks and backslashes.
        """
        return {
            "command": [_encoded(text) for text in self.command],
            "directory": _encoded(self.directory),
            "entrypoint": [_encoded(text) for text in self.entrypoint],
            "environment": [_encoded(text) for text in self.environment],
            "user": _encoded(self.user),
        }


def _encoded(text: str) -> str:
    return quote(text, safe=_SAFE)


def _decoded(text: str) -> str:
    """Decode a text of a container. Raises ValueError."""
    decoded = unquote_to_bytes(text).decode()
    if "\0" in decoded:
        raise _MalformedError("oci: a text has a NUL in it")
    return decoded


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of an image. Manifests of older versions lack the fields with a default."""

    architecture: str
    recipe: Recipe
    kernel_release: str
    agent_version: str
    agent_sha256: str
    packages: tuple[Package, ...]
    files: tuple[ContentFile, ...]
    configured: bool = False
    """The packages' scripts have run, in a machine."""
    least_memory: int | None = None
    """Bytes that a machine of the image needs."""
    python_packages: tuple[str, ...] = ()
    """Packages of PyPI, with their versions: NAME==VERSION."""
    machine: str = ""
    """The machine whose disk it has; empty if it was built."""
    oci: OciSettings | None = None
    """The settings of the container that it was made of."""
    shrunk_from: str = ""
    """The digest of the image of which this is a smaller one."""
    shrunk_for: tuple[str, ...] = ()
    """The command that does the same in both, percent-encoded."""

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        document = {"format": FORMAT, **asdict(self)}
        for name in _OPTIONAL:
            if not document["recipe"][name]:
                del document["recipe"][name]
        if not self.python_packages:
            del document["python_packages"]
        for name in ("machine", "shrunk_from", "shrunk_for"):
            if not document[name]:
                del document[name]
        if self.oci is None:
            del document["oci"]
        else:
            document["oci"] = self.oci.table()
        if not self.configured:
            del document["configured"]
        if self.least_memory is None:
            del document["least_memory"]
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return text.encode("ascii") + b"\n"

    def is_canonical(self, text: bytes) -> bool:
        """Tell whether `text`, which was decoded, are the canonical bytes, and safe to print.

        An escape may stand for a character unsafe on a terminal: `image inspect` prints it.
        """
        return self.encode() == text and b"\\" not in text

    def file(self, name: str) -> ContentFile:
        """Return what is known of one of the files."""
        return next(file for file in self.files if file.name == name)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Return the total size of all files in bytes."""
        return sum(file.size for file in self.files)


class _MalformedError(ValueError):
    """A field is missing or has another type."""


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _MalformedError("expected an object")
    return value


def _list(document: dict[str, object], key: str) -> list[object]:
    value = document.get(key)
    if not isinstance(value, list):
        raise _MalformedError(f"{key}: expected a list")
    return value


def _text(document: dict[str, object], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise _MalformedError(f"{key}: expected text")
    return value


def _integer(document: dict[str, object], key: str) -> int:
    value = document.get(key)
    if not is_whole(value, most=_LARGEST):
        raise _MalformedError(f"{key}: expected a number")
    return value


def _texts(document: dict[str, object], key: str) -> tuple[str, ...]:
    """Return a list of texts that older versions do not have."""
    found = _list(document, key) if key in document else []
    if not all(isinstance(item, str) for item in found):
        raise _MalformedError(f"{key}: expected texts")
    return tuple(str(item) for item in found)


def _recipe(document: dict[str, object]) -> Recipe:
    packages = _list(document, "packages")
    if not all(isinstance(package, str) for package in packages):
        raise _MalformedError("recipe.packages: expected names")
    return Recipe(
        version=_integer(document, "version"),
        suite=_text(document, "suite"),
        packages=tuple(str(package) for package in packages),
        guest=_text(document, "guest"),
        kernel=_text(document, "kernel") if "kernel" in document else "",
        pip=_texts(document, "pip"),
        own_files=_texts(document, "own_files"),
        recommends=document.get("recommends") is True,
        script=_text(document, "script") if "script" in document else "",
        memory=_integer(document, "memory") if "memory" in document else 0,
        container=_text(document, "container") if "container" in document else "",
    )


def _oci(document: dict[str, object]) -> OciSettings:
    settings = OciSettings(
        environment=tuple(map(_decoded, _texts(document, "environment"))),
        directory=_decoded(_text(document, "directory")),
        user=_decoded(_text(document, "user")),
        entrypoint=tuple(map(_decoded, _texts(document, "entrypoint"))),
        command=tuple(map(_decoded, _texts(document, "command"))),
    )
    if not all(pair.partition("=")[0] and "=" in pair for pair in settings.environment):
        raise _MalformedError("oci.environment: expected NAME=VALUE")
    return settings


def _package(document: dict[str, object]) -> Package:
    return Package(
        name=_text(document, "name"),
        version=_text(document, "version"),
        architecture=_text(document, "architecture"),
        scripts=document.get("scripts") is True,
    )


def _content_file(document: dict[str, object]) -> ContentFile:
    return ContentFile(
        name=_text(document, "name"),
        size=_integer(document, "size"),
        sha256=_text(document, "sha256"),
    )


def _decode(text: bytes) -> Manifest:
    document = _object(json.loads(text))
    if document.get("format") != FORMAT:
        raise _MalformedError(f"format {document.get('format')!r}, expected {FORMAT}")
    manifest = Manifest(
        architecture=_text(document, "architecture"),
        recipe=_recipe(_object(document.get("recipe"))),
        kernel_release=_text(document, "kernel_release"),
        agent_version=_text(document, "agent_version"),
        agent_sha256=_text(document, "agent_sha256"),
        packages=tuple(_package(_object(item)) for item in _list(document, "packages")),
        files=tuple(_content_file(_object(item)) for item in _list(document, "files")),
        configured=document.get("configured") is True,
        least_memory=_integer(document, "least_memory") if "least_memory" in document else None,
        python_packages=_texts(document, "python_packages"),
        machine=_text(document, "machine") if "machine" in document else "",
        oci=_oci(_object(document["oci"])) if "oci" in document else None,
        shrunk_from=_text(document, "shrunk_from") if "shrunk_from" in document else "",
        shrunk_for=_texts(document, "shrunk_for"),
    )
    if [file.name for file in manifest.files] != [INITRD, KERNEL, ROOT]:
        raise _MalformedError(f"files: expected {INITRD}, {KERNEL} and {ROOT}")
    return manifest


def read_manifest(stream: BinaryIO, digest: str, path: Path) -> Manifest:
    """Read the manifest whose SHA-256 must be `digest`. Raises ImageDamagedError."""
    stream.seek(0)
    text = stream.read(MOST_BYTES)
    if hashlib.sha256(text).hexdigest() != digest:
        raise ImageDamagedError(f"{path} was altered")
    return decode_manifest(text, path)


def decode_manifest(text: bytes, path: Path) -> Manifest:
    """Decode a manifest. Raises ImageDamagedError, which names `path`."""
    try:
        return _decode(text)
    except (ValueError, RecursionError) as error:
        raise ImageDamagedError(
            f"{path} is not a manifest that this version can read: {error}"
        ) from (error)
