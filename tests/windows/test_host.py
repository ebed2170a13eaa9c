"""What Windows says of itself, and its files and locks."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.free_ports import free_port

from boincvm.errors import UsageError
from boincvm.host import files, locks, programs, resources, users
from boincvm.job.model import PortForward
from boincvm.machine.free_ports import check_free

assert sys.platform == "win32"


def test_memory_and_processors() -> None:
    total = resources.total_memory()
    assert 1 << 28 < resources.available_memory() < total
    assert 0 < resources.used_memory() < total
    assert resources.processors() == len(resources.usable_processors()) >= 1
    assert resources.processor_name()


def test_the_processors_time_never_falls() -> None:
    before = resources.busy_seconds()
    assert before >= 0
    subprocess.run([sys.executable, "-c", "sum(range(10 ** 7))"], check=True)
    assert resources.busy_seconds() >= before


def test_the_boot_has_an_id_that_stays() -> None:
    program = "from boincvm.host.resources import boot_id; print(boot_id())"
    given = f"import sys; sys.path[:0] = {sys.path!r}; {program}"
    other = subprocess.run(
        [sys.executable, "-c", given], capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == resources.boot_id()


def test_users() -> None:
    assert users.user_id() != "/"
    assert isinstance(users.is_root(), bool)
    assert Path(users.home_directory()).is_dir()


def test_a_file_without_a_name_of_its_own(tmp_path: Path) -> None:
    descriptor = files.open_nameless(tmp_path)
    assert files.write_at(descriptor, b"a\nb", 5) == 3
    assert files.read_at(descriptor, 10, 5) == b"a\nb"
    os.close(descriptor)
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_somebody_has_is_not_free() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(UsageError, match=str(port)):
        check_free([PortForward(port, 80)])
    check_free([PortForward(port, 80)])


def test_programs_are_found_without_their_suffix(tmp_path: Path) -> None:
    for name in ("tool.exe", "other"):
        (tmp_path / name).write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert programs.find_program("tool") == str(tmp_path / "tool.exe")
        assert programs.find_program("other") is None


def test_programs_of_installers_are_found(tmp_path: Path) -> None:
    (tmp_path / "qemu").mkdir()
    (tmp_path / "qemu/qemu-img.exe").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        patch.setenv("PROGRAMFILES", str(tmp_path))
        assert programs.find_program("qemu-img") == str(tmp_path / "qemu" / "qemu-img.exe")


def test_locks_of_two_processes(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from boincvm.host import files, locks\n"
        "descriptor = files.open_descriptor(sys.argv[1], 'c+')\n"
        "print(locks.try_lock(descriptor, shared=len(sys.argv) > 2))\n"
    )

    def other(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", program, str(path), *arguments],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    descriptor = files.open_descriptor(path, "c+")
    assert locks.try_lock(descriptor, shared=True)
    assert other() == "False"
    assert other("shared") == "True"
    os.close(descriptor)
    assert other() == "True"


def test_the_slot_lock_is_one_process_s(tmp_path: Path) -> None:
    path = tmp_path / "boinc_lockfile"
    descriptor = locks.lock_slot_file(path)
    assert descriptor is not None
    assert locks.lock_slot_file(path) is None
    os.close(descriptor)
    again = locks.lock_slot_file(path)
    assert again is not None
    os.close(again)
