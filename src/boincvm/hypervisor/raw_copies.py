"""Raw copies of images' root disks, for hypervisors that read no qcow2.

    cache/PLACE/NAME.raw    one root disk, read-only; NAME changes whenever the image's file does
    cache/PLACE/lock        held while one is made

A copy is written once for each image, and lies beneath the disks of machines. Nobody's machine ends
when it is removed: it is held open, or the machine has a link of its own to it. A copy has the time
of the image's file; writing to that changes it, and the copy is made again.
"""

import os
from pathlib import Path

from boincvm.host import locks
from boincvm.host.files import open_descriptor, set_mode
from boincvm.host.own_files import check_directory, make_directory
from boincvm.host.renames import replace
from boincvm.hypervisor import qcow2
from boincvm.paths import cache_directory

_MOST_COPIES = 4
"""Copies that are kept, those made or linked to last."""
_SUFFIX = ".raw"
_COARSEST_TIME = 2.0
"""Seconds to which some file systems round a file's time."""


def raw_copy(directory_name: str, root: Path, disk_format: str) -> tuple[Path, int]:
    """Return the raw copy of `root` and a descriptor of it; it is made if it is not there.

    `directory_name`: the directory of the copies in the cache directory. Raises OSError, HostError,
    DiskRefusedError.
    """
    directory = check_directory(cache_directory()) / directory_name
    status = root.stat()
    name = f"{status.st_dev:x}-{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"
    path = directory / f"{name}{_SUFFIX}"
    found = _open_unchanged(path, status)
    if found is not None:
        return path, found
    make_directory(directory)
    with locks.exclusive(directory / "lock"):
        found = _open_unchanged(path, status)
        if found is None:
            _make(root, disk_format, path, status)
            _remove_old(directory)
            found = open_descriptor(path, follow_links=False)
        return path, found


def _open_unchanged(path: Path, image: os.stat_result) -> int | None:
    """Return a descriptor of a copy that is there and as it was made. Raises OSError."""
    try:
        descriptor = open_descriptor(path, follow_links=False)
    except FileNotFoundError:
        return None
    if abs(os.fstat(descriptor).st_mtime - image.st_mtime) < _COARSEST_TIME:
        return descriptor
    os.close(descriptor)
    return None


def _make(root: Path, disk_format: str, path: Path, image: os.stat_result) -> None:
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = open_descriptor(new, "x+", follow_links=False, permissions=0o600)
    try:
        qcow2.write_raw(root, descriptor, disk_format)
        set_mode(descriptor, 0o444)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    os.utime(new, ns=(image.st_atime_ns, image.st_mtime_ns))
    replace(new, path)


def _remove_old(directory: Path) -> None:
    copies = sorted(directory.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_ctime)
    for path in copies[:-_MOST_COPIES]:
        path.unlink(missing_ok=True)
