"""Tell which files of the guest's disk have been touched. Runs in the guest, by its own Python.

    touched_files.py begin           from now on the disk records accesses
    touched_files.py use AGENT M...  touch what the agent's archive and the modules M need
    touched_files.py end             print the paths that were touched, each with a NUL after it

A file's time of access is set long before now, and the disk is mounted so that the first access
renews it. That holds for files that are read, mapped or run, for links that are followed, and for
directories that are listed; not for files whose attributes alone are asked for.
"""

import ctypes
import importlib
import os
import sys
import zipimport
from collections.abc import Iterator

_LONG_AGO = 1_000_000_000
"""One second after the epoch, in nanoseconds."""
_REMOUNT = 1 << 5
_STRICT_ACCESS_TIMES = 1 << 24
"""Flags of mount(2)."""


def _entries(directory: bytes, device: int) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield what is on the disk below `directory`; its own list of names is read before."""
    with os.scandir(directory) as listed:
        found = sorted((entry.path, entry.stat(follow_symlinks=False)) for entry in listed)
    for path, status in found:
        if status.st_dev != device:
            continue
        yield path, status
        if status.st_mode & 0o170000 == 0o040000:
            yield from _entries(path, device)


def _begin() -> None:
    device = os.lstat(b"/").st_dev
    for path, status in list(_entries(b"/", device)):
        os.utime(path, ns=(_LONG_AGO, status.st_mtime_ns), follow_symlinks=False)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(None, b"/", None, _REMOUNT | _STRICT_ACCESS_TIMES, None):
        sys.exit(f"the disk cannot be mounted again: {os.strerror(ctypes.get_errno())}")


def _use(agent: str, modules: list[str]) -> None:
    sys.path.insert(0, agent)
    files = zipimport.zipimporter(agent)._files  # type: ignore[attr-defined]
    names = [str(name).rpartition(".")[0].replace(os.sep, ".") for name in files]
    for name in sorted({*names, *modules}):
        if not name.endswith("__main__"):
            importlib.import_module(name.removesuffix(".__init__"))


def _end() -> None:
    for path, status in _entries(b"/", os.lstat(b"/").st_dev):
        if status.st_atime_ns != _LONG_AGO:
            sys.stdout.buffer.write(path.lstrip(b"/") + b"\0")


if __name__ == "__main__":
    if sys.argv[1] == "begin":
        _begin()
    elif sys.argv[1] == "use":
        _use(sys.argv[2], sys.argv[3:])
    else:
        _end()
