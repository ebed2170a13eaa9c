"""Write an image as one bootable disk for other hypervisors."""

import hashlib
from pathlib import Path

from boincvm.errors import HostError, UsageError, host_error
from boincvm.host.atomic_files import replacement
from boincvm.host.files import create_new
from boincvm.hypervisor.boot_disc import write_boot_disc
from boincvm.hypervisor.qcow2 import DiskRefusedError
from boincvm.image.appliance import BOOT_DISC, DISK, Appliance, write_appliance
from boincvm.image.bootable_disk import (
    SHELL,
    check_command,
    disk_room,
    kernel_arguments,
    write_bootable_disk,
)
from boincvm.image.build_directory import build_directory
from boincvm.image.disk_formats import STREAM, convert_from_raw, make_reproducible, qemu_img
from boincvm.image.progress import Progress
from boincvm.image.store import Image
from boincvm.image.target_file import check_target
from boincvm.image.tools import check_space

_MARGIN = 64 << 20
"""Bytes of disk for a format's tables, and to stay free."""
_LEAST_MEMORY = 512 << 20
"""Bytes of memory that an appliance's machine has if its image needs less."""


def export_image(
    image: Image,
    path: Path,
    disk_format: str,
    *,
    command: str | None = SHELL,
    force: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write `image` to `path` as a disk of one of `disk_formats.FORMATS`, completely or not at all.

    `command`: what the machine runs, before it powers off; None for a machine of a cloud, which a
    seed sets up. `force` replaces an existing file. Raises UsageError, HypervisorMissingError,
    HypervisorError, ImageBuildError, HostDiskFullError, HostError.
    """
    progress = Progress(None) if progress is None else progress
    check_target(path, force=force)
    if command is not None:
        check_command(command)
    elif disk_format == "ova":
        raise UsageError(
            "an appliance (OVA) has no disk for a seed, so it is not exported for clouds",
            hint="take another format, such as --format qcow2",
        )
    if disk_format != "raw":
        qemu_img()
    builds = image.directory.parents[1] / "builds"
    try:
        with build_directory(builds) as directory:
            _check_room(image, directory, path, disk_format)
            with replacement(path, is_unique=True) as part:
                if disk_format == "raw":
                    _write_raw(image, part, command, progress)
                    return
                raw = directory / "raw"
                size = _write_raw(image, raw, command, progress)
                with progress.step(f"converting the disk to {disk_format}"):
                    if command is not None and disk_format == "ova":
                        _write_appliance(image, directory, part, command, size)
                        return
                    convert_from_raw(raw, part, disk_format)
                    make_reproducible(part, disk_format, _digest(image, command))
    except DiskRefusedError as error:
        raise HostError(f"image {image.name} cannot be exported: {error}") from error
    except OSError as error:
        raise host_error(f"image {image.name} cannot be exported to {path}", error) from error


def _check_room(image: Image, directory: Path, path: Path, disk_format: str) -> None:
    """Raise HostDiskFullError unless there is room for the file, and for the disk on its way."""
    room = disk_room(image)
    here = {"raw": 0, "ova": 3 * room}.get(disk_format, room)
    there = (2 if disk_format == "ova" else 1) * room + _MARGIN
    what = f"exporting image {image.name}"
    if directory.stat().st_dev == path.absolute().parent.stat().st_dev:
        here, there = 0, here + there
    if here:
        check_space(directory, here + _MARGIN, what)
    check_space(path.absolute().parent, there, what)


def _digest(image: Image, command: str | None) -> str:
    """Return a digest of all that an export depends on."""
    return hashlib.sha256(f"{image.digest} {command}".encode()).hexdigest()


def _write_raw(image: Image, path: Path, command: str | None, progress: Progress) -> int:
    with progress.step("writing the disk"), create_new(path) as file:
        return write_bootable_disk(
            image, file.fileno(), command or SHELL, is_for_clouds=command is None
        )


def _write_appliance(image: Image, directory: Path, part: Path, command: str, size: int) -> None:
    digest = _digest(image, command)
    disk, disc = directory / DISK, directory / BOOT_DISC
    convert_from_raw(directory / "raw", disk, "vmdk", STREAM)
    (directory / "raw").unlink()
    make_reproducible(disk, "vmdk", digest)
    write_boot_disc(disc, image.kernel, image.initrd, kernel_arguments(command))
    memory = max(image.manifest.least_memory or 0, _LEAST_MEMORY)
    write_appliance(part, Appliance(image.name, digest, size, memory), disk, disc)
