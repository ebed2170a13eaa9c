"""What the agent prepares in advance, including control groups."""

import errno
import os
import posix
import socket
from contextlib import closing, suppress
from pathlib import Path

import pytest

from boincvm_agent import control_group
from boincvm_agent.control_group import ControlGroup
from boincvm_agent.prepared import Prepared

USAGE = b"usage_usec 30\nuser_usec 10\nsystem_usec 20\nnr_periods 0\n"
FILES = {"cgroup.procs": b"", "cgroup.kill": b"", "cpu.stat": USAGE}


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make directories like the kernel's: files appear and disappear with them."""
    make, remove = os.mkdir, os.rmdir

    def mkdir(path: str) -> None:
        make(path)
        for name, content in FILES.items():
            (Path(path) / name).write_bytes(content)

    def rmdir(path: str) -> None:
        if (Path(path) / "cgroup.procs").read_bytes().split():
            raise OSError(errno.EBUSY, "Device or resource busy")
        for name in FILES:
            (Path(path) / name).unlink()
        remove(path)

    (tmp_path / "cgroup.procs").touch()
    monkeypatch.setattr(control_group, "DIRECTORY", str(tmp_path))
    monkeypatch.setattr(posix, "mkdir", mkdir)
    monkeypatch.setattr(posix, "rmdir", rmdir)
    return tmp_path


def names(location: Path) -> list[str]:
    return sorted(path.name for path in location.iterdir() if path.is_dir())


def test_a_group_from_its_beginning_to_its_end(groups: Path) -> None:
    before = os.listdir("/proc/self/fd")
    group = ControlGroup("one")
    group.enter()
    assert (groups / "one/cgroup.procs").read_bytes() == b"0"
    group.leave()
    assert (groups / "cgroup.procs").read_bytes() == b"0"
    group.kill()
    assert (groups / "one/cgroup.kill").read_bytes() == b"1"
    assert group.cpu_time() == group.cpu_time() == (10, 20)
    assert not group.remove()  # somebody is still in it
    assert group.cpu_time() == (10, 20)
    (groups / "one/cgroup.procs").write_bytes(b"")
    assert group.remove()
    assert names(groups) == []
    assert os.listdir("/proc/self/fd") == before


def test_memory_of_all_processes_in_a_group(groups: Path) -> None:
    group = ControlGroup("one")
    nobody = b"4194305"  # more than the kernel's largest process number
    (groups / "one/cgroup.procs").write_bytes(b"%d\n%s\n" % (os.getpid(), nobody))
    assert group.resident() > 1000
    (groups / "one/cgroup.procs").write_bytes(b"")
    assert group.resident() == 0
    assert group.remove()


def test_a_group_that_cannot_be_opened_is_gone(
    groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.listdir("/proc/self/fd")
    (groups / "cgroup.procs").unlink()
    with pytest.raises(FileNotFoundError):
        ControlGroup("one")
    assert names(groups) == []
    assert os.listdir("/proc/self/fd") == before


def test_a_group_made_beforehand_is_used_once(groups: Path) -> None:
    prepared = Prepared()
    prepared.prepare()
    prepared.prepare()
    assert names(groups) == ["program-1"]
    first, second = prepared.take_group(), prepared.take_group()
    assert names(groups) == ["program-1", "program-2"]
    assert first is not second
    assert first.remove()
    prepared.prepare()
    assert names(groups) == ["program-2", "program-3"]
    assert second.remove()
    assert prepared.take_group().remove()
    assert names(groups) == []


def test_pipes_made_beforehand_are_used_once(groups: Path) -> None:
    prepared = Prepared()
    prepared.prepare()
    with closing(prepared.take_pipes()) as first, closing(prepared.take_pipes()) as second:
        os.write(first.stdout[1], b"x")
        os.write(second.stdout[1], b"y")
        assert os.read(first.stdout[0], 2) == b"x"


class Kernel:
    """The kernel's counters, and its log: one datagram for each line."""

    def __init__(self, location: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counters = location / "vmstat"
        self._log, self._end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._end.setblocking(False)
        self.looks = 0
        open_really, read_really = os.open, os.pread

        def open_here(path: str, flags: int) -> int:
            return (
                open_really(self.counters, flags) if path == "/proc/vmstat" else self._end.fileno()
            )

        def read_here(descriptor: int, count: int, offset: int) -> bytes:
            self.looks += offset == 0
            return read_really(descriptor, count, offset)

        monkeypatch.setattr(posix, "open", open_here)
        monkeypatch.setattr(posix, "pread", read_here)
        monkeypatch.setattr(posix, "lseek", lambda *_: self._read_log())

    def report(self, count: int | None) -> None:
        text = b"".join(b"counter_%d 12345\n" % number for number in range(2000))
        kills = b"" if count is None else b"oom_kill %d\nlast 1\n" % count
        self.counters.write_bytes(text + kills)
        self._log.send(b"Out of memory")

    def _read_log(self) -> None:
        with suppress(BlockingIOError):
            while self._end.recv(100):
                pass

    def close(self) -> None:
        self._log.close()
        self._end.close()


def test_kills_for_want_of_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, monkeypatch)
    with closing(kernel):
        kernel.report(42)
        prepared = Prepared()
        assert [prepared.out_of_memory_kills() for _ in range(3)] == [42, 42, 42]
        assert kernel.looks == 1
        kernel.report(43)
        kernel.report(44)
        assert [prepared.out_of_memory_kills() for _ in range(3)] == [44, 44, 44]
        assert kernel.looks == 2
        kernel.report(None)
        assert prepared.out_of_memory_kills() == 0


def test_the_kernels_own_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counts = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    kernel = Kernel(tmp_path, monkeypatch)
    with closing(kernel):
        kernel.report(None)
        kernel.counters = Path("/proc/vmstat")
        assert Prepared().out_of_memory_kills() >= int(counts["oom_kill"])
        assert kernel.looks == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"usage_usec 30\n", b"usage_usec 30\nnice_usec 1\nuser_usec 10\nsystem_usec 20\n"],
)
def test_a_kernel_that_tells_its_times_otherwise(groups: Path, content: bytes) -> None:
    group = ControlGroup("one")
    (groups / "one/cpu.stat").write_bytes(content)
    with pytest.raises(OSError, match="begins otherwise"):
        group.cpu_time()
    assert group.remove()
