"""The images of this computer: names that lead to shared, read-only objects.

    images/names/NAME            the digest of the image that NAME stands for
    images/objects/DIGEST/       kernel, initrd, root.qcow2, manifest.json; all 0444
    images/lock                  held by whoever changes names or objects
    images/builds/               builds under way
    images/golden/               machines of them that have booted (machine/golden/snapshots.py)

A run holds a shared lock on an object's manifest.json; nobody removes what is so held.
"""

from __future__ import annotations

import os
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, cast

from boincvm.errors import ImageDamagedError, ImageMissingError, UsageError, host_error
from boincvm.host import locks
from boincvm.host.files import sync_directory
from boincvm.host.own_files import check_directory, make_directory, open_own
from boincvm.hypervisor.architecture import Architecture, kernel_architecture
from boincvm.image import verify
from boincvm.image.filenames import INITRD, KERNEL, MANIFEST, ROOT
from boincvm.image.names import check_image_name
from boincvm.paths import data_directory

if TYPE_CHECKING:
    from types import TracebackType

    from boincvm.image.manifest import Manifest

GOLDEN = "golden"


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
        """Return the path of the root disk, a read-only qcow2 file under the machines' overlays."""
        return self.directory / ROOT

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

    def digest_of(self, name: str) -> str:
        """Return the digest that `name` stands for.

        Raises UsageError, ImageMissingError, ImageDamagedError, HostError.
        """
        check_image_name(name)
        path = self._names / name
        try:
            with open_own(path) as file:
                digest = file.read(80).decode("ascii", "replace").strip()
        except FileNotFoundError as error:
            raise ImageMissingError(
                f"there is no image {name}", hint=f"boincvm image build {name}"
            ) from error
        except OSError as error:
            raise _damaged(name, f"{path} cannot be read: {error}") from error
        if not _is_digest(digest):
            raise _damaged(name, f"{path} contains no digest")
        return digest

    def open(self, name: str) -> Image:
        """Open the image `name`, verify it, and hold it until it is closed.

        Raises UsageError, ImageMissingError, ImageDamagedError.
        """
        image = self._hold(name)
        try:
            if not verify.is_remembered(image.directory, image.digest):
                verify.verify(image.directory, image.manifest)
        except ImageDamagedError as error:
            image.close()
            raise _damaged(name, error.message) from error
        except BaseException:
            image.close()
            raise
        return image

    def open_unverified(self, name: str) -> Image:
        """Open an image and check only its manifest: enough to list and inspect it."""
        image = self._hold(name)
        try:
            _ = image.manifest
        except BaseException:
            image.close()
            raise
        return image

    def _hold(self, name: str) -> Image:
        """Open and lock the image without verifying anything."""
        digest = self.digest_of(name)
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
        name has it. Returns the digest. Raises UsageError.
        """
        check_image_name(name)
        digest = manifest.digest
        with locks.exclusive(self._lock):
            make_directory(self._objects)
            make_directory(self._names)
            path = self._objects / digest
            if path.exists() and not _is_sound(path, manifest):
                _remove_tree(path)
            if not path.exists():
                directory.rename(path)
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

    def remove(self, name: str) -> None:
        """Remove `name`, and its object unless another name has it, even if it is damaged.

        Raises ImageMissingError, and UsageError while a run uses the object.
        """
        check_image_name(name)
        with locks.exclusive(self._lock):
            path = self._names / name
            if not path.exists():
                raise ImageMissingError(f"there is no image {name}", hint="boincvm image ls")
            digest = path.read_text(encoding="ascii", errors="replace").strip()
            others = {self._named(other) for other in self.names() if other != name}
            if digest not in others and not self._remove_object(digest):
                raise UsageError(
                    f"image {name} is in use by a running machine",
                    hint="wait until that run ends, then try again",
                )
            path.unlink()

    def _named(self, name: str) -> str:
        return (self._names / name).read_text(encoding="ascii", errors="replace").strip()

    def _remove_object(self, digest: str) -> bool:
        """Remove an object; return False if a run holds it."""
        directory = self._objects / digest
        if not _is_digest(digest) or not directory.exists():
            return True
        try:
            with (directory / MANIFEST).open("rb") as stream:
                if not locks.try_lock(stream.fileno()):
                    return False
                (directory / MANIFEST).unlink()
        except FileNotFoundError:
            pass  # an object without a manifest is damaged, and nobody can hold it
        _remove_tree(directory)
        verify.forget(digest)
        return True

    def _collect(self) -> None:
        """Remove the objects that have no name and that no run holds."""
        images = {self._named(name) for name in self.names()}
        for directory in self._objects.iterdir():
            if directory.name not in images:
                self._remove_object(directory.name)


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
