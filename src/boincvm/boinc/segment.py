"""Open the shared memory that the client has made, in the way that init_data.xml names.

Unix: the file `boinc_mmap_file` in the slot if the key is -1 (clients 6 and later, with an app
version of api_version 6 or later), otherwise a System V segment. Windows: a named file mapping.
(api/boinc_api.cpp, setup_shared_mem; lib/shmem.cpp.)
"""

import mmap
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from boincvm.boinc.channels import SEGMENT_SIZE, SegmentError
from boincvm.boinc.init_data import InitData
from boincvm.host.files import open_descriptor

if TYPE_CHECKING:
    from boincvm.boinc.windows_mapping import WindowsCalls

FILE_NAME = "boinc_mmap_file"
MAPPED_FILE_KEY = -1
NO_KEY = 0
_WINDOWS_PREFIXES = ("Global\\shm_", "shm_")
_IN_A_FILE = sys.platform != "win32"


class Segment(Protocol):
    """Memory shared with the client: `memory` has 8192 writable bytes until `close`."""

    memory: memoryview

    def close(self) -> None: ...


def open_segment(slot: Path, init_data: InitData) -> Segment:
    """Open the shared memory of the task that runs in `slot`. Raises SegmentError."""
    if not _IN_A_FILE:
        return open_windows_mapping(init_data.communication_name)
    if init_data.shared_memory_key == MAPPED_FILE_KEY:
        return MappedFile(slot / FILE_NAME)
    return open_system_v(init_data.shared_memory_key)


class MappedFile:
    """The file that current clients on Unix map."""

    def __init__(self, path: Path) -> None:
        """Map the file. Raises SegmentError."""
        try:
            descriptor = open_descriptor(path, "r+", follow_links=False, wait=False)
        except OSError as error:
            raise SegmentError(f"{FILE_NAME} cannot be opened: {error.strerror}") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size < SEGMENT_SIZE:
                raise SegmentError(f"{FILE_NAME} is not a file of {SEGMENT_SIZE} bytes")
            try:
                self._map = mmap.mmap(descriptor, SEGMENT_SIZE)
            except (OSError, ValueError) as error:
                raise SegmentError(f"{FILE_NAME} cannot be mapped: {error}") from error
        finally:
            os.close(descriptor)
        self.memory = memoryview(self._map)

    def close(self) -> None:
        self.memory.release()
        self._map.close()


def make_segment(slot: Path, name: str) -> Segment:
    """Make the shared memory of the task that runs in `slot`, as a client does. Raises OSError.

    `name` is that of the communication object, which Windows has in place of a file.
    """
    if not _IN_A_FILE:
        from boincvm.boinc.windows_mapping import Kernel32, WindowsMapping

        calls = Kernel32()
        handle = calls.create(_WINDOWS_PREFIXES[-1] + name)
        return WindowsMapping(calls, handle, calls.map(handle))
    path = slot / FILE_NAME
    path.write_bytes(bytes(SEGMENT_SIZE))
    return MappedFile(path)


def open_system_v(key: int) -> Segment:
    """Open the existing segment with that key. Raises SegmentError."""
    if key == NO_KEY:  # shmget(2) would make a new, private segment
        raise SegmentError("init_data.xml names no shared memory")
    # ctypes is slow to import, and hardly any client needs System V.
    from boincvm.boinc.system_v import SystemV

    return SystemV(key)


def open_windows_mapping(name: str, calls: "WindowsCalls | None" = None) -> Segment:
    """Open the mapping of the communication object `name`, global or of this session.

    Raises SegmentError.
    """
    if not name:
        raise SegmentError("init_data.xml names no shared memory")
    from boincvm.boinc.windows_mapping import Kernel32, WindowsMapping

    calls = Kernel32() if calls is None else calls
    for prefix in _WINDOWS_PREFIXES:
        handle = calls.open(prefix + name)
        if handle:
            address = calls.map(handle)
            if address:
                return WindowsMapping(calls, handle, address)
            calls.close(handle)
    raise SegmentError(f"there is no file mapping shm_{name[:100]!r}")
