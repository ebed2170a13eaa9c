"""System V shared memory, for clients that name a key: shmget(2), shmat(2), shmdt(2)."""

import ctypes
import os

from boincvm.boinc.channels import SEGMENT_SIZE, SegmentError

_FAILED = ctypes.c_void_p(-1).value


class SystemV:
    """An attached segment of another process."""

    def __init__(self, key: int) -> None:
        """Attach it. Raises SegmentError if no segment has that key and at least 8192 bytes."""
        self._libc = _library()
        number = self._libc.shmget(key, SEGMENT_SIZE, 0)
        if number < 0:
            raise SegmentError(f"there is no shared memory with the key {key}: {_reason()}")
        address = self._libc.shmat(number, None, 0)
        if address is None or address == _FAILED:
            raise SegmentError(f"the shared memory of key {key} cannot be attached: {_reason()}")
        self._address: int = address
        bytes_there = (ctypes.c_ubyte * SEGMENT_SIZE).from_address(address)
        self.memory = memoryview(bytes_there).cast("B")

    def close(self) -> None:
        self.memory.release()
        self._libc.shmdt(self._address)


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.shmget.argtypes = (ctypes.c_int, ctypes.c_size_t, ctypes.c_int)
    library.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
    library.shmat.restype = ctypes.c_void_p
    library.shmdt.argtypes = (ctypes.c_void_p,)
    return library


def _reason() -> str:
    return os.strerror(ctypes.get_errno())
