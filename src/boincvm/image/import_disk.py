"""Make an image of a disk file that `export_image` has written, also after a machine has used it.

The file may be from anybody. It is copied first, so that what was checked is what is opened; then
its header is checked (disk_headers.py), and how much it holds is compared with the free disk.
"""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from boincvm.errors import BoincvmError, ImageDamagedError, UsageError, host_error
from boincvm.host.files import allocated_size, copy_range, create_new, open_descriptor, read_at
from boincvm.host.filetree import extents
from boincvm.hypervisor.qcow2 import DiskRefusedError
from boincvm.image.architectures import AMD64
from boincvm.image.bootable_disk import SECTOR, Index, NotBootableError, read_index
from boincvm.image.build_directory import build_directory
from boincvm.image.disk_formats import qemu_img, run_qemu_img
from boincvm.image.disk_headers import MOST_SIZE, check_disk_file
from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT, Manifest, decode_manifest
from boincvm.image.names import check_image_name
from boincvm.image.object_files import describe, make_durable
from boincvm.image.progress import Progress
from boincvm.image.store import ImageStore
from boincvm.image.tools import ToolError, check_space
from boincvm.tar_reader import BLOCK, TarError, TarReader

_MARGIN = 64 << 20
"""Bytes of disk that must stay free."""
_PIECE = 1 << 20
_MOST_MEMBERS = 100
_DISK_SUFFIXES = (b".vmdk", b".vdi", b".vhd", b".vhdx", b".img", b".raw", b".qcow2")
_MACHINE = "that was exported"
"""In the manifest, which machine's disk it is."""
_MOST_NUMBERS = 1 << 16
"""Bytes of what qemu-img says of a disk."""


def import_disk(
    path: Path,
    disk_format: str,
    name: str,
    store: ImageStore,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Make the image `name` of the disk file `path`, of one of `disk_formats.FORMATS`.

    `force` replaces an existing image. Returns the manifest. Raises UsageError,
    ImageDamagedError for a file that is refused, HypervisorMissingError, HostDiskFullError,
    HostError.
    """
    check_image_name(name)
    if name in store.names() and not force:
        raise UsageError(f"there is an image {name} already", hint="name another, or give --force")
    qemu_img()
    progress = Progress(None) if progress is None else progress
    try:
        with build_directory(store.builds) as directory, _errors(path):
            with progress.step(f"copying {path.name}"):
                copy = directory / "copy"
                _copy(path, disk_format, copy)
            disk_format = "vmdk" if disk_format == "ova" else disk_format
            with progress.step("checking the disk"), copy.open("rb") as file:
                check_disk_file(file.fileno(), disk_format)
                check_space(directory, 2 * _content_size(copy, disk_format) + _MARGIN, "the import")
            raw = directory / "raw"
            if disk_format == "raw":
                copy.rename(raw)
            else:
                with progress.step("unpacking the disk"):
                    run_qemu_img("convert", "-q", "-O", "raw", _source(copy, disk_format), raw)
                    copy.unlink()
            with progress.step("writing the image"):
                (directory / "object").mkdir()
                manifest = _write_object(raw, directory / "object", path)
                store.publish(name, directory / "object", manifest)
    except OSError as error:
        raise host_error(f"{path} cannot be imported", error) from error
    return manifest


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Raise ImageDamagedError, which names the file, for one that is refused."""
    try:
        yield
    except NotBootableError as error:
        raise ImageDamagedError(
            f"{path} is not a disk that boincvm has exported: {error}",
            hint="machines need an image with our agent; build one: boincvm image build NAME",
        ) from error
    except (DiskRefusedError, TarError) as error:
        raise refused(path, str(error)) from error
    except ToolError as error:
        raise refused(path, f"qemu-img cannot read it: {error.message}") from error


def refused(path: Path, why: str) -> BoincvmError:
    """Return the error for a file that is not imported."""
    return ImageDamagedError(
        f"{path} is refused: {why}",
        hint="export the image again, or convert the disk: boincvm help images, Other formats",
    )


def _copy(path: Path, disk_format: str, target: Path) -> None:
    """Copy the file, or the one disk of an appliance. Raises TarError, OSError, BoincvmError."""
    source = open_descriptor(path, wait=False)  # a pipe without a writer must not block us
    try:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode):
            raise refused(path, "it is not a regular file")
        # A disk stays sparse; the disk in an archive does not.
        size = status.st_size if disk_format == "ova" else allocated_size(status)
        check_space(target.parent, size + _MARGIN, f"importing {path}")
        if disk_format == "ova":
            with os.fdopen(source, "rb", closefd=False) as stream:
                archive = TarReader(_Ended(stream), most_members=_MOST_MEMBERS)
                _extract(archive, status.st_size, target)
            return
        with create_new(target) as file:
            file.truncate(status.st_size)
            for begin, length in extents(source, status.st_size):
                _copy_all(source, file.fileno(), begin, length)
    finally:
        os.close(source)


class _Ended:
    """An archive to whose end the two empty blocks are added, which VirtualBox leaves out."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._end = BytesIO(bytes(2 * BLOCK))

    def read(self, size: int = -1, /) -> bytes:
        """Read up to `size` bytes. Raises OSError."""
        return self._stream.read(size) or self._end.read(size)


def _extract(archive: TarReader, size: int, target: Path) -> None:
    """Extract the disk of an appliance; nothing in its descriptor is looked at."""
    found = 0
    for member in archive:
        if not member.name.lower().endswith(_DISK_SUFFIXES):
            continue
        found += 1
        if found > 1:
            raise TarError("it has more than one disk")
        if member.kind != "file" or not member.name.endswith(b".vmdk") or member.size > size:
            raise TarError("its disk is not a VMDK file in the archive")
        with create_new(target) as file:
            while piece := archive.read(_PIECE):
                file.write(piece)
    if not found:
        raise TarError("it has no disk")


def _copy_all(source: int, target: int, begin: int, length: int) -> None:
    """Copy a part of a file to the same place in another. Raises OSError."""
    end = begin + length
    while begin < end:
        done = copy_range(source, begin, target, begin, end - begin)
        if not done:
            return  # it has become shorter; the rest is zeros
        begin += done


def _source(disk: Path, disk_format: str) -> str:
    """Describe the disk for QEMU, which may not look for another beneath it."""
    file = {"driver": "file", "filename": str(disk.absolute())}
    node: dict[str, object] = {"driver": disk_format, "file": file}
    if disk_format in ("qcow2", "vmdk"):
        node["backing"] = None
    return f"json:{json.dumps(node)}"


def _content_size(disk: Path, disk_format: str) -> int:
    """Return how many bytes of the disk are stored in its file.

    Raises ToolError, DiskRefusedError if it is larger for QEMU than its header has told us.
    """
    source = _source(disk, disk_format)
    output = run_qemu_img("measure", "--output=json", "-O", "qcow2", source)
    measured = json.loads(output[:_MOST_NUMBERS])
    if int(measured["fully-allocated"]) > MOST_SIZE + MOST_SIZE // 100:
        raise DiskRefusedError("its size is too large")
    return int(measured["required"])


def _write_object(raw: Path, directory: Path, path: Path) -> Manifest:
    """Write an image's files into `directory`; the raw disk becomes its root disk.

    Raises NotBootableError, DiskRefusedError, ImageDamagedError, ToolError, HostDiskFullError,
    OSError.
    """
    with raw.open("r+b") as file:
        disk = file.fileno()
        index = read_index(disk)
        manifest = decode_manifest(read_at(disk, index.manifest, index.manifest_at), path)
        _write_boot_files(disk, index, directory)
        # Before the boot sector was there, it was empty in an image that was built.
        file.write(bytes(SECTOR))
        file.truncate(index.root)
    root = directory / ROOT
    run_qemu_img("convert", "-q", "-f", "raw", "-O", "qcow2", raw, root)
    files = tuple(describe(directory / name) for name in (INITRD, KERNEL, ROOT))
    if files[:2] != manifest.files[:2] or manifest.architecture != AMD64.name:
        raise DiskRefusedError("kernel or initrd are not those of its manifest")
    if files != manifest.files:  # a machine has used it
        manifest = replace(manifest, files=files, machine=_MACHINE)
    (directory / MANIFEST).write_bytes(manifest.encode())
    make_durable(directory)
    return manifest


def _write_boot_files(disk: int, index: Index, directory: Path) -> None:
    for name, at, size in (
        (KERNEL, index.kernel_at, index.kernel),
        (INITRD, index.initrd_at, index.initrd),
    ):
        with create_new(directory / name) as file:
            file.write(read_at(disk, size, at))
