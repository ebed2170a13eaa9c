"""A named file mapping of Windows: OpenFileMappingW, MapViewOfFile."""

import ctypes
from typing import Protocol

from boincvm.boinc.channels import SEGMENT_SIZE, SegmentError

_READ_AND_WRITE = 0x2 | 0x4
"""FILE_MAP_WRITE | FILE_MAP_READ."""
_PAGE_READ_WRITE = 0x4


class WindowsCalls(Protocol):
    """The four calls that a named file mapping needs; they return 0 on failure."""

    def open(self, name: str) -> int: ...

    def map(self, handle: int) -> int: ...

    def unmap(self, address: int) -> None: ...

    def close(self, handle: int) -> None: ...


class WindowsMapping:
    """An open mapping, at `address`."""

    def __init__(self, calls: WindowsCalls, handle: int, address: int) -> None:
        self._calls = calls
        self._handle = handle
        self._address = address
        bytes_there = (ctypes.c_ubyte * SEGMENT_SIZE).from_address(address)
        self.memory = memoryview(bytes_there).cast("B")

    def close(self) -> None:
        self.memory.release()
        self._calls.unmap(self._address)
        self._calls.close(self._handle)


class Kernel32:
    """The real calls of Windows."""

    def __init__(self) -> None:
        """Load kernel32. Raises SegmentError if this is not Windows."""
        load = getattr(ctypes, "WinDLL", None)
        if load is None:
            raise SegmentError("named file mappings exist on Windows only")
        self._library: ctypes.CDLL = load("kernel32", use_last_error=True)
        self._library.CreateFileMappingW.restype = ctypes.c_void_p
        self._library.OpenFileMappingW.restype = ctypes.c_void_p
        self._library.MapViewOfFile.restype = ctypes.c_void_p

    def create(self, name: str) -> int:
        """Make the mapping, as a client does. Raises OSError."""
        nowhere = ctypes.c_void_p(-1)
        handle: int | None = self._library.CreateFileMappingW(
            nowhere, None, _PAGE_READ_WRITE, 0, SEGMENT_SIZE, ctypes.c_wchar_p(name)
        )
        if not handle:
            raise OSError("the shared memory cannot be made")
        return handle

    def open(self, name: str) -> int:
        return self._library.OpenFileMappingW(_READ_AND_WRITE, False, ctypes.c_wchar_p(name)) or 0

    def map(self, handle: int) -> int:
        size = ctypes.c_size_t(SEGMENT_SIZE)
        where = ctypes.c_void_p(handle)
        return self._library.MapViewOfFile(where, _READ_AND_WRITE, 0, 0, size) or 0

    def unmap(self, address: int) -> None:
        self._library.UnmapViewOfFile(ctypes.c_void_p(address))

    def close(self, handle: int) -> None:
        self._library.CloseHandle(ctypes.c_void_p(handle))
