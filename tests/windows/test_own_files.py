"""Which files Windows says are this user's own."""

import ctypes
import subprocess
import sys
from ctypes import wintypes
from pathlib import Path

import pytest

from boincvm.errors import HostError
from boincvm.host import locks
from boincvm.host.own_files import check_directory, make_directory, open_own
from boincvm.host.own_files_windows import rights_of, user_identifier

assert sys.platform == "win32"

_LIST = 4
"""DACL_SECURITY_INFORMATION."""
OURS = f"(A;;FA;;;{user_identifier()})"


def set_list(path: Path, text: str) -> None:
    """Replace a file's access control list by one in the language of security descriptors."""
    library = ctypes.WinDLL("advapi32", use_last_error=True)
    descriptor = ctypes.c_void_p()
    assert library.ConvertStringSecurityDescriptorToSecurityDescriptorW(
        ctypes.c_wchar_p(f"D:P{text}"), 1, ctypes.byref(descriptor), None
    )
    assert library.SetFileSecurityW(ctypes.c_wchar_p(str(path)), wintypes.DWORD(_LIST), descriptor)


def test_what_we_make_is_ours(tmp_path: Path) -> None:
    directory = tmp_path / "a/b"
    make_directory(directory)
    (directory / "file").write_bytes(b"content")
    assert check_directory(directory) == directory
    with open_own(directory / "file") as file:
        assert file.read() == b"content"
    assert rights_of(directory).owner == user_identifier()


@pytest.mark.parametrize(
    "others",
    ["(A;;FA;;;WD)", "(A;;0x2;;;WD)", "(A;;GW;;;WD)"],
    ids=["all rights", "writing data", "writing"],
)
def test_what_others_can_write_to_is_refused(tmp_path: Path, others: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    set_list(path, OURS + others)
    with pytest.raises(HostError, match="other than you"):
        open_own(path)


@pytest.mark.parametrize("harmless", ["", "(A;;GR;;;WD)", "(A;;FA;;;SY)", "(A;;FA;;;BA)"])
def test_what_others_can_only_read_is_used(tmp_path: Path, harmless: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    set_list(path, OURS + harmless)
    open_own(path).close()


def test_a_locked_directory_is_removed_with_its_lock(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    held = locks.open_lockable_directory(directory)
    assert locks.try_lock(held)
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from pathlib import Path\n"
        "from boincvm.host import locks\n"
        "print(locks.try_lock(locks.open_lockable_directory(Path(sys.argv[1]))))\n"
    )
    other = [sys.executable, "-c", program, str(directory)]
    assert subprocess.run(other, capture_output=True, check=True).stdout.strip() == b"False"
    (directory / "disk").write_bytes(b"content")
    locks.remove_locked_directory(directory, held)
    assert not directory.exists()
    with pytest.raises(NotADirectoryError):
        locks.open_lockable_directory(directory)


def test_a_locked_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "seat"
    held = locks.open_lock(path)
    assert locks.try_lock(held)
    locks.remove_locked_file(path, held)
    assert not path.exists()
