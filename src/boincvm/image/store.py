"""The images of this computer: names that lead to shared, read-only objects.

    images/names/NAME            the digest of the image that NAME stands for
    images/objects/DIGEST/       kernel, initrd, root.qcow2, manifest.json; all 0444
    images/references/           who needs an object whatever its name stands for (references.py)
    images/lock                  held while names, objects or references change
    images/builds/               builds under way
    images/golden/               machines of them that have booted (machine/golden/snapshots.py)

A run holds a shared lock on an object's manifest.json; nobody removes what is so held. What is off
for now, but has a disk over an object's, has a reference to it.
"""

from __future__ import annotations

import os
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, cast

from boincvm.errors import ImageDamagedError, ImageMissingError, UsageError, host_error
from boincvm.host import locks
from boincvm.host.files import (
    allocated_size,
    open_descriptor,
    read_at,
    sync_directory,
    sync_file,
)
from boincvm.host.own_files import check_directory, make_directory, open_own
from boincvm.host.renames import rename
from boincvm.hypervisor.architecture import Architecture, kernel_architecture
from boincvm.image import verify
from boincvm.image.filenames import INITRD, KERNEL, MANIFEST, ON_DEMAND, ROOT, ROOT_PART
from boincvm.image.names import check_image_name
from boincvm.paths import data_directory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from boincvm.image.manifest import Manifest
    from boincvm.image.references import Reference, References

GOLDEN = "golden"
_MOST_NAMED = 8
"""Images that an error names."""
_OF_CONTAINER = b'"oci":{'
_HEAD = 4096
"""Bytes of a manifest in which the fields before the packages are."""


class Image:
    """An image in use: it stays until `close`, even if it is removed meanwhile.

    Its manifest is only read when it is asked for, which a run does not do.
    """

    def __init__(self, name: str, digest: str, directory: Path, lock: BufferedReader) -> None:
        """Take over `lock`, the open manifest with a lock on it."""
        self.name = name
        self.digest = digest
        self.directory = directory
        self._lock = lock
        self._manifest: Manifest | None = None

    @property
    def manifest(self) -> Manifest:
        """Return the manifest. Raises ImageDamagedError unless its digest is the image's."""
        if self._manifest is None:
            from boincvm.image import manifest

            path = self.directory / MANIFEST
            try:
                self._manifest = manifest.read_manifest(self._lock, self.digest, path)
            except ImageDamagedError as error:
                raise _damaged(self.name, error.message) from error
        return self._manifest

    @property
    def least_memory(self) -> int:
        """Return the bytes of memory that a machine needs; 0 if that was not measured.

        The manifest is canonical and was verified, so this field, which comes before all lists but
        that of three files, is read without the rest: each start asks for it.
        """
        digits = self._head().partition(b'"least_memory":')[2][:20].partition(b",")[0]
        return int(digits) if digits.isdigit() else 0

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the variables that programs find because the image was made of a container.

        The field that tells of it comes before all long lists, too. Raises ImageDamagedError.
        """
        if _OF_CONTAINER not in self._head():
            return {}
        from boincvm.image.oci.commands import environment  # few images have it

        return environment(self.manifest)

    def _head(self) -> bytes:
        return read_at(self._lock.fileno(), _HEAD, 0)

    @property
    def kernel(self) -> Path:
        """Return the path of the uncompressed kernel, an ELF file or an arm64 Image."""
        return self.directory / KERNEL

    @property
    def architecture(self) -> Architecture:
        """Return the architecture of its machines, which its kernel tells sooner than the manifest.

        Raises HypervisorError.
        """
        return kernel_architecture(self.kernel)

    @property
    def initrd(self) -> Path:
        return self.directory / INITRD

    @property
    def root(self) -> Path:
        """Return the path of the root disk, a read-only qcow2 file under the machines' overlays.

        Of a partial image it is the part that is here.
        """
        return root_of(self.directory)

    @property
    def is_partial(self) -> bool:
        """Tell whether the root disk is read on demand (image/delivery/on_demand.py)."""
        return verify.is_partial(self.directory)

    @property
    def golden(self) -> Path:
        """Return the directory of golden snapshots of the store's images."""
        return self.directory.parents[1] / GOLDEN

    def close(self) -> None:
        """Release the image. Idempotent."""
        self._lock.close()

    def __enter__(self) -> Image:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class ImageStore:
    """The images beneath `root`, by default this user's."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = check_directory(data_directory() / "images") if root is None else root
        self.builds = self.root / "builds"
        self.golden = self.root / GOLDEN
        self._names = self.root / "names"
        self._objects = self.root / "objects"
        self._lock = self.root / "lock"

    def names(self) -> list[str]:
        """Return the names of all images, sorted."""
        if not self._names.is_dir():
            return []
        return sorted(path.name for path in self._names.iterdir() if not path.name.startswith("."))

    def digests(self) -> set[str]:
        """Return the digests of all images that are here, even of those without a name."""
        if not self._objects.is_dir():
            return set()
        return {path.name for path in self._objects.iterdir() if _is_digest(path.name)}

    def note_use(self, name: str) -> None:
        """Take note that `name` is used now. Raises OSError."""
        os.utime(self._names / name)

    def names_unused_since(self, begin: float) -> list[str]:
        """Return the names of which no use was noted since `begin`, in seconds since 1970.

        Raises OSError.
        """
        return [name for name in self.names() if (self._names / name).stat().st_mtime < begin]

    def digest_of(self, name: str, *, may_build: bool = True) -> str:
        """Return the digest that `name` stands for.

        may_build: an error may advise to build the image, which helps nobody who removes it.
        Raises UsageError, ImageMissingError, ImageDamagedError, HostError.
        """
        check_image_name(name)
        path = self._names / name
        try:
            with open_own(path) as file:
                digest = file.read(80).decode("ascii", "replace").strip()
        except FileNotFoundError as error:
            raise self._missing(name, may_build=may_build) from error
        except OSError as error:
            raise _damaged(name, f"{path} cannot be read: {error}") from error
        if not _is_digest(digest):
            raise _damaged(name, f"{path} contains no digest")
        return digest

    def _missing(self, name: str, *, may_build: bool = True) -> ImageMissingError:
        # Both are rarely needed.
        from boincvm.image.tools import how_to_get
        from boincvm.similar_names import did_you_mean

        names = self.names()
        similar = did_you_mean(name, names)
        if similar:
            hint = f"{similar}boincvm image ls lists all"
        elif names:
            more = " and more" if len(names) > _MOST_NAMED else ""
            hint = f"images here: {', '.join(names[:_MOST_NAMED])}{more} (boincvm image ls)"
            hint += f"; to get {name}: {how_to_get(name)}" if may_build else ""
        else:
            hint = how_to_get(name) if may_build else "there are no images: boincvm image ls"
        return ImageMissingError(f"there is no image {name}", hint=hint)

    def open(self, name: str, digest: str | None = None, *, partly: bool = False) -> Image:
        """Open the image `name`, verify it, and hold it until it is closed.

        With `digest`, open that content, whatever the name stands for now. `partly`: the caller can
        do with an image whose disk is read on demand. Raises UsageError, ImageMissingError,
        ImageDamagedError.
        """
        image = self._hold(name, digest)
        try:
            if image.is_partial and not partly:
                raise ImageMissingError(
                    f"of image {name} only a part is here, which is enough for boincvm run alone",
                    hint=f"to bring all of it: boincvm image fetch URL {name}",
                )
            if not verify.is_remembered(image.directory, image.digest):
                verify.verify(image.directory, image.manifest)
        except ImageDamagedError as error:
            image.close()
            raise _damaged(name, error.message) from error
        except BaseException:
            image.close()
            raise
        return image

    def is_partial(self, digest: str) -> bool:
        """Tell whether the content `digest` is here in part."""
        return self._has(digest) and verify.is_partial(self._objects / digest)

    def open_unverified(self, name: str, digest: str | None = None) -> Image:
        """Open an image and check only its manifest: enough to list and inspect it."""
        image = self._hold(name, digest)
        try:
            _ = image.manifest
        except BaseException:
            image.close()
            raise
        return image

    def _hold(self, name: str, digest: str | None) -> Image:
        """Open and lock the image without verifying anything."""
        if digest is None:
            digest = self.digest_of(name)
        elif not self._has(digest):
            raise ImageMissingError(
                f"the content {digest[:12]} of the image {name} has gone",
                hint="restore the previous image",
            )
        directory = self._objects / digest
        path = directory / MANIFEST
        try:
            stream = cast("BufferedReader", open_own(path))
        except OSError as error:
            raise _damaged(name, f"{path} cannot be read: {error}") from error
        # A remover holds the exclusive lock only briefly, and then the object is gone.
        if not locks.try_lock(stream.fileno(), shared=True) or not path.exists():
            stream.close()
            raise ImageMissingError(
                f"image {name} is being removed", hint=f"boincvm image build {name}"
            )
        return Image(name, digest, directory, stream)

    def publish(self, name: str, directory: Path, manifest: Manifest) -> str:
        """Give the finished object in `directory` (on the same file system) its place and name.

        An object that the name had before is removed as soon as no run holds it, unless another
        name or a reference has it. Returns the digest. Raises UsageError.
        """
        check_image_name(name)
        digest = manifest.digest
        with locks.exclusive(self._lock):
            make_directory(self._objects)
            make_directory(self._names)
            path = self._objects / digest
            is_better = directory.exists() and verify.is_partial(path)
            if path.exists() and (is_better or not _is_sound(path, manifest)):
                _remove_tree(path)
            if not path.exists():
                rename(directory, path)
                sync_directory(self._objects)
            verify.remember(path, manifest)
            temporary = self._names / f".{name}.new"
            temporary.touch(mode=0o600)  # whatever the umask
            with temporary.open("w", encoding="ascii") as stream:
                stream.write(digest + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self._names / name)
            sync_directory(self._names)
            self._collect()
        return digest

    def remove(self, name: str) -> list[str]:
        """Remove `name`, and its object unless another name has it, even if it is damaged.

        Returns who else needs the object, which is kept for them. Raises ImageMissingError, and
        UsageError while a run uses the object.
        """
        check_image_name(name, is_new=False)
        with locks.exclusive(self._lock):
            return self._remove(name)

    def remove_unused(self, name: str, begin: float) -> str | None:
        """Remove `name` as `remove` does, unless its use was noted since `begin` after all.

        Returns the digest that it stood for, or None if it stays. Raises ImageMissingError,
        UsageError, OSError.
        """
        with locks.exclusive(self._lock):
            if (self._names / name).stat().st_mtime >= begin:
                return None
            digest = self._named(name)
            self._remove(name)
            return digest

    def _remove(self, name: str) -> list[str]:
        path = self._names / name
        if not path.exists():
            raise self._missing(name, may_build=False)
        digest = path.read_text(encoding="ascii", errors="replace").strip()
        others = {self._named(other) for other in self.names() if other != name}
        owners = self.owners().get(digest, [])
        if digest not in others and not owners and not self._remove_object(digest):
            raise UsageError(
                f"image {name} is in use by a running machine",
                hint="wait until that run ends, then try again",
            )
        path.unlink()
        return owners

    # References.

    @property
    def _references(self) -> References:
        from boincvm.image.references import References  # most runs need none

        return References(self.root)

    def keep(self, digest: str, name: str, directory: Path, owner: str) -> bool:
        """Keep the object for `owner`, a machine or job in `directory`, as long as that exists.

        That replaces what was kept for it before. Returns False if the store has no such object.
        Raises OSError, HostError.
        """
        references = self._references
        former = references.of(directory)
        if former is not None and former.digest == digest:
            return self._has(digest)
        if not self._has(digest):
            return False
        with locks.exclusive(self._lock):
            if not self._has(digest):
                return False
            references.add(digest, name, owner, directory)
        return True

    def kept_for(self, directory: Path) -> str | None:
        """Return the digest of the object that is kept for what is in `directory`, if there is one.

        Raises HostError.
        """
        try:
            found = self._references.of(directory)
        except OSError as error:
            raise host_error("it cannot be read which image is kept", error) from error
        return found.digest if found is not None and self._has(found.digest) else None

    def release(self, directory: Path) -> None:
        """Keep nothing for what was in `directory` any more, and remove what nobody needs.

        Does nothing if the directory is there again. Raises OSError, HostError.
        """
        references = self._references
        if references.of(directory) is None:
            return
        with locks.exclusive(self._lock):
            if directory.exists():
                return
            references.remove(directory)
            self._collect()

    def complete(self, image: Image) -> None:
        """Make a partial image an ordinary one, if all of its disk is there.

        Raises OSError, ImageDamagedError.
        """
        manifest, directory = image.manifest, image.directory
        with locks.exclusive(self._lock):
            if not image.is_partial:
                return
            part = directory / ROOT_PART
            if not verify.is_file(part, manifest.file(ROOT)):
                return
            part.chmod(0o444)
            sync_file(part)
            rename(part, directory / ROOT)
            (directory / ON_DEMAND).unlink()
            sync_directory(directory)
            verify.remember(directory, manifest)

    def limit_parts(self, most: int) -> int:
        """Empty the parts of images read on demand that have not been used for longest.

        Until those of all images take at most `most` bytes; a part that a run has open stays. What
        is emptied is read again when it is needed. Returns how many were emptied. Raises OSError.
        """
        if self._size_of_parts() <= most:
            return 0
        emptied = 0
        with locks.exclusive(self._lock):  # none becomes an ordinary disk meanwhile
            left = self._size_of_parts()
            for path in sorted(self._parts(), key=lambda path: path.stat().st_mtime_ns):
                if left <= most:
                    break
                part = open_descriptor(path, "r+", follow_links=False)
                try:
                    size = allocated_size(os.fstat(part))
                    if size and locks.try_lock(part):
                        os.ftruncate(part, 0)
                        left -= size
                        emptied += 1
                finally:
                    os.close(part)
        return emptied

    def _parts(self) -> list[Path]:
        return [*self._objects.glob(f"*/{ROOT_PART}")]

    def _size_of_parts(self) -> int:
        return sum(allocated_size(path.stat()) for path in self._parts())

    def collect(self) -> int:
        """Remove what has no name and nobody needs; return how many objects. Raises OSError."""
        if not self._objects.is_dir():
            return 0
        with locks.exclusive(self._lock):
            return self._collect()

    def owners(self) -> dict[str, list[str]]:
        """Return who needs an object besides its names, by digest. Raises OSError, HostError."""
        found: dict[str, list[str]] = {}
        for one in self._references.all():
            found.setdefault(one.digest, []).append(one.owner)
        return found

    def nameless(self) -> list[Reference]:
        """Return a reference to each object that lost its name. Raises OSError, HostError."""
        named = {self._named(name) for name in self.names()}
        found = {one.digest: one for one in self._references.all() if one.digest not in named}
        return sorted(found.values(), key=lambda one: (one.name, one.digest))

    def _has(self, digest: str) -> bool:
        return _is_digest(digest) and (self._objects / digest / MANIFEST).exists()

    def _named(self, name: str) -> str:
        return (self._names / name).read_text(encoding="ascii", errors="replace").strip()

    def _remove_object(self, digest: str) -> bool:
        """Remove an object; return False if a run holds it."""
        directory = self._objects / digest
        if not _is_digest(digest) or not directory.exists():
            return True
        try:
            held = open_descriptor(directory / MANIFEST)
        except FileNotFoundError:
            pass  # an object without a manifest is damaged, and nobody can hold it
        else:
            if not locks.try_lock(held):
                os.close(held)
                return False
            locks.remove_locked_file(directory / MANIFEST, held)
        _remove_tree(directory)
        verify.forget(digest)
        return True

    def _collect(self) -> int:
        """Remove the objects that have no name and that no reference or run holds."""
        references = self._references
        references.prune()
        images = {self._named(name) for name in self.names()}
        images.update(one.digest for one in references.all())
        removed = 0
        for directory in self._objects.iterdir():
            if directory.name not in images and _is_digest(directory.name):
                removed += self._remove_object(directory.name)
        return removed


def root_of(directory: Path) -> Path:
    """Return the path of the root disk of an image in `directory`, or of the part that is here."""
    return directory / (ROOT_PART if verify.is_partial(directory) else ROOT)


def _is_digest(text: str) -> bool:
    return len(text) == 64 and not text.strip("0123456789abcdef")


def _damaged(name: str, message: str) -> ImageDamagedError:
    return ImageDamagedError(message, hint=f"boincvm image rm {name} && boincvm image build {name}")


def _remove_tree(directory: Path) -> None:
    import shutil  # here only: it brings three compressors into the wrapper's process

    try:
        shutil.rmtree(directory)
    except OSError as error:
        raise host_error(f"{directory} cannot be removed", error) from error


def _is_sound(directory: Path, manifest: Manifest) -> bool:
    try:
        verify.verify(directory, manifest)
    except ImageDamagedError:
        return False
    return (directory / MANIFEST).read_bytes() == manifest.encode()
