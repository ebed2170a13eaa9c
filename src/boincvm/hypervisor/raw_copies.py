"""Raw copies of images' root disks, for hypervisors that read no qcow2.

    cache/PLACE/NAME.raw    one root disk, read-only; NAME changes whenever the image's file does
    cache/PLACE/lock        held by whoever makes one

A copy is written once for each image, and lies beneath the disks of machines. Nobody's machine ends
when it is removed: it is held open, or the machine has a link of its own to it.
"""

import os
from pathlib import Path

from boincvm.host import locks
from boincvm.host.files import open_descriptor, set_mode
from boincvm.host.own_files import check_directory, make_directory
from boincvm.hypervisor import qcow2
from boincvm.paths import cache_directory

_MOST_KEPT = 4
"""Copies that are kept, those made last. (Their times must not change: a COW file of User-mode
Linux names the time of what lies beneath it.)"""
_SUFFIX = ".raw"


def raw_copy(place: str, root: Path, disk_format: str) -> tuple[Path, int]:
    """Return the raw copy of `root` and a descriptor of it; it is made if it is not there.

    `place`: the directory of the copies in the cache directory. Raises OSError, HostError,
    DiskRefusedError.
    """
    directory = check_directory(cache_directory()) / place
    status = root.stat()
    name = f"{status.st_dev:x}-{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"
    path = directory / f"{name}{_SUFFIX}"
    try:
        return path, open_descriptor(path, follow_links=False)
    except FileNotFoundError:
        pass
    make_directory(directory)
    with locks.exclusive(directory / "lock"):
        if not path.exists():
            _make(root, disk_format, path)
            _remove_old(directory)
        return path, open_descriptor(path, follow_links=False)


def _make(root: Path, disk_format: str, path: Path) -> None:
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
    new.rename(path)


def _remove_old(directory: Path) -> None:
    copies = sorted(directory.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
    for path in copies[:-_MOST_KEPT]:
        path.unlink(missing_ok=True)
