"""The kinds of shared memory; Windows' is tested with a stand-in for its system calls."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from boincvm.boinc.channels import SEGMENT_SIZE, SegmentError
from boincvm.boinc.init_data import InitData
from boincvm.boinc.segment import open_segment, open_windows_mapping

_CREATE = 0o1000 | 0o600
_REMOVE = 0


@pytest.fixture
def system_v() -> Iterator[tuple[int, ctypes.Array[ctypes.c_char]]]:
    """Return the key of a real segment, and its memory as its owner sees it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    key = 0x40000000 + os.getpid()
    number = libc.shmget(key, SEGMENT_SIZE, _CREATE)
    assert number >= 0, os.strerror(ctypes.get_errno())
    address = libc.shmat(number, None, 0)
    yield key, (ctypes.c_char * SEGMENT_SIZE).from_address(address)
    libc.shmdt(ctypes.c_void_p(address))
    libc.shmctl(number, _REMOVE, None)


def test_system_v(tmp_path: Path, system_v: tuple[int, ctypes.Array[ctypes.c_char]]) -> None:
    key, owned = system_v
    segment = open_segment(tmp_path, InitData(shared_memory_key=key))
    segment.memory[8191] = 7
    assert owned.raw[8191] == 7
    segment.close()


@pytest.mark.parametrize(
    ("key", "reason"), [(0, "names no shared memory"), (0x7BADBEEF, "there is no shared memory")]
)
def test_a_key_of_nothing(tmp_path: Path, key: int, reason: str) -> None:
    with pytest.raises(SegmentError, match=reason):
        open_segment(tmp_path, InitData(shared_memory_key=key))


def test_the_mapped_file(tmp_path: Path) -> None:
    file = tmp_path / "boinc_mmap_file"
    file.write_bytes(bytes(SEGMENT_SIZE))
    segment = open_segment(tmp_path, InitData(shared_memory_key=-1))
    segment.memory[5120] = 1
    segment.close()
    assert file.read_bytes()[5120] == 1


@pytest.mark.parametrize("kind", ["missing", "short", "link", "directory", "pipe"])
def test_a_mapped_file_that_is_none(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "boinc_mmap_file"
    match kind:
        case "short":
            file.write_bytes(bytes(100))
        case "link":
            (tmp_path / "other").write_bytes(bytes(SEGMENT_SIZE))
            file.symlink_to("other")
        case "directory":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
    with pytest.raises(SegmentError):
        open_segment(tmp_path, InitData(shared_memory_key=-1))


class StandInForWindows:
    """Provides file mappings by name, and counts what is open."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self.asked: list[str] = []
        self.open_handles = 0
        self.views = 0
        self.memory = ctypes.create_string_buffer(SEGMENT_SIZE)

    def open(self, name: str) -> int:
        self.asked.append(name)
        self.open_handles += name in self._names
        return 5 if name in self._names else 0

    def map(self, handle: int) -> int:
        assert handle == 5
        self.views += 1
        return ctypes.addressof(self.memory)

    def unmap(self, address: int) -> None:
        assert address == ctypes.addressof(self.memory)
        self.views -= 1

    def close(self, handle: int) -> None:
        assert handle == 5
        self.open_handles -= 1


@pytest.mark.parametrize("there", ["Global\\shm_boinc_0", "shm_boinc_0"])
def test_windows_global_name_first_then_the_session_s(there: str) -> None:
    windows = StandInForWindows([there])
    segment = open_windows_mapping("boinc_0", windows)
    segment.memory[1024] = 9
    assert windows.memory.raw[1024] == 9
    segment.close()
    assert (windows.open_handles, windows.views) == (0, 0)
    assert windows.asked == ["Global\\shm_boinc_0", "shm_boinc_0"][: len(windows.asked)]
    assert windows.asked[-1] == there


def test_windows_without_the_mapping() -> None:
    with pytest.raises(SegmentError, match="no file mapping"):
        open_windows_mapping("boinc_0", StandInForWindows([]))


def test_no_windows_here() -> None:
    with pytest.raises(SegmentError, match="on Windows only"):
        open_windows_mapping("boinc_0")
