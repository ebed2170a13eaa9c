"""Base images of Dockerfiles that are in files here: `FROM` finds them without a network."""

import re
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import UsageError
from boincvm.image.oci import archive
from boincvm.image.oci.container import read_container

MOST_BASE_IMAGES = 16
_NAME = re.compile(
    r"(?:(?P<domain>localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+:\d{1,5})/)?"
    r"(?P<path>[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?",
    re.ASCII,
)
"""A container's name, as a Dockerfile has it after FROM (Docker's distribution/reference)."""
_LONGEST_NAME = 255


class BaseImage(NamedTuple):
    """A container in a file, and the name by which Dockerfiles call it."""

    name: str
    """With registry and tag, like docker.io/library/debian:12."""
    path: Path
    """An archive, as for --from-oci."""


def parse_base_images(texts: list[str]) -> tuple[BaseImage, ...]:
    """Read what was given as NAME=FILE. Raises UsageError."""
    found: dict[str, BaseImage] = {}
    for text in texts:
        base = _parse(text)
        if base.name in found:
            raise UsageError(f"found two --base-image for {base.name}, expected one")
        found[base.name] = base
    if len(found) > MOST_BASE_IMAGES:
        raise UsageError(
            f"found {len(found)} times --base-image, expected at most {MOST_BASE_IMAGES}"
        )
    return tuple(found.values())


def _parse(text: str) -> BaseImage:
    name, _, path = text.partition("=")
    # A bound first: the pattern may try a long name in many ways.
    match = _NAME.fullmatch(name) if len(name) <= _LONGEST_NAME else None
    if match is None or not path or "\0" in path:
        raise UsageError(
            f"found --base-image {text[:80]!r}, expected NAME=FILE, with a name as it is after FROM"
            " in the Dockerfile, without a digest",
            hint="like --base-image debian:12=debian.tar; docker save -o debian.tar debian:12"
            " writes such a file",
        )
    domain, inner = match["domain"], match["path"]
    if domain is None:
        domain, inner = "docker.io", inner if "/" in inner else f"library/{inner}"
    return BaseImage(f"{domain}/{inner}:{match['tag'] or 'latest'}", Path(path))


def format_of(base: BaseImage, architecture: str, directory: Path) -> str:
    """Check that the file has a container for the architecture; return its format's name.

    That is the name that programs for containers have for it. `directory` takes temporary files.
    Raises InputFileError, ImageBuildError, OSError.
    """
    with archive.opened(base.path, directory) as opened:
        read_container(opened, architecture)
        return "docker-archive" if opened.find("index.json") is None else "oci-archive"
