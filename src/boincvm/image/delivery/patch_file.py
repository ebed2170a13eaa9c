"""Patch files: they follow a packed image that everybody has already, and make a newer one of it.

    "boincvm image patch 1\\n"
    the digest of the image that it changes, and "\\n"
    the digest of the image that it makes, and "\\n"
    a patch (patch.py)

Several may follow each other. Only these lines are read to find out which image a task needs.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from boincvm.errors import ImageDamagedError, UsageError, host_error
from boincvm.image.delivery.patch import apply_patch, patched_manifest
from boincvm.image.manifest import Manifest
from boincvm.image.pack import MOST_PATCHES, packed_manifest
from boincvm.image.pack_format import reading

_MAGIC = b"boincvm image patch 1\n"
_HEAD = re.compile(_MAGIC + rb"([0-9a-f]{64})\n([0-9a-f]{64})\n")
_HEAD_BYTES = len(_MAGIC) + 2 * 65
_HINT = (
    "get the file again (in BOINC: reset the project), "
    "or make it again: boincvm image pack --since OLD NAME FILE"
)


class PatchFile(NamedTuple):
    """A patch file, of which the head was read."""

    path: Path
    base: str
    """The digest of the image that it changes."""
    digest: str
    """The digest of the image that it makes."""

    def manifest(self) -> Manifest:
        """Return the manifest of the image that it makes.

        Raises ImageMissingError, ImageDamagedError, HostError, OSError.
        """
        with self._patch() as stream:
            return patched_manifest(stream, self.digest, str(self.path))

    def apply(self, base: Path, target: Path) -> Manifest:
        """Make the image's files in the directory `target` from those of its base in `base`.

        Each is compared with its digest. Raises ImageMissingError, ImageDamagedError, HostError,
        OSError.
        """
        with self._patch() as stream:
            return apply_patch(stream, base, self.digest, target, str(self.path))

    @contextmanager
    def _patch(self) -> Iterator[BinaryIO]:
        """Open what follows the head."""
        try:
            with _opened(self.path) as stream:
                stream.seek(_HEAD_BYTES)
                yield stream
        except ImageDamagedError as error:
            raise ImageDamagedError(error.message, hint=_HINT) from error


class Chain(NamedTuple):
    """A packed image and the patch files that follow it, each of which fits what precedes it."""

    pack: Path
    base: Manifest
    """The packed image's."""
    patches: tuple[PatchFile, ...]

    @property
    def digest(self) -> str:
        """Return the digest of the image that the last patch makes."""
        return self.digests[-1]

    @property
    def digests(self) -> tuple[str, ...]:
        """Return the digests of the packed image and of what each patch makes."""
        return (self.base.digest, *(patch.digest for patch in self.patches))


def read_chain(pack: Path, patches: Sequence[Path]) -> Chain:
    """Read the heads of a packed image and of the patch files that follow it, in their order.

    Raises UsageError, ImageMissingError, ImageDamagedError, HostError.
    """
    if len(patches) > MOST_PATCHES:
        raise UsageError(
            f"{len(patches)} patches follow {pack}, and at most {MOST_PATCHES} may",
            hint="make one in place of several: boincvm image pack --since PACKED NAME FILE",
        )
    manifest = packed_manifest(pack)
    before, digest = pack, manifest.digest
    found = []
    for path in patches:
        patch = _head(path)
        if patch.base != digest:
            raise ImageDamagedError(
                f"{path} does not belong to {before}: it changes the image {patch.base[:12]}, and"
                f" that is {digest[:12]}",
                hint=f"give the patches of one image in their order; else {_HINT}",
            )
        found.append(patch)
        before, digest = path, patch.digest
    return Chain(pack, manifest, tuple(found))


def write_head(stream: BinaryIO, base: str, digest: str) -> None:
    """Write what precedes the patch that makes the image `digest` of the image `base`."""
    stream.write(_MAGIC + f"{base}\n{digest}\n".encode("ascii"))


def damaged(path: Path, what: str) -> ImageDamagedError:
    """Return an error that says `what` is wrong with the patch file `path`."""
    return ImageDamagedError(
        f"{path} is not a patch of an image, or is damaged: {what}", hint=_HINT
    )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a patch file. Raises ImageMissingError, ImageDamagedError, HostError."""
    hint = "create it: boincvm image pack --since OLD NAME FILE"
    with reading(path, damaged, hint) as stream:
        yield stream


def _head(path: Path) -> PatchFile:
    try:
        with _opened(path) as stream:
            head = _HEAD.fullmatch(stream.read(_HEAD_BYTES))
    except OSError as error:
        raise host_error(f"{path} cannot be read", error, hint="check its disk") from error
    if head is None:
        raise damaged(path, "it does not begin with the digests of two images")
    return PatchFile(path, head[1].decode("ascii"), head[2].decode("ascii"))
