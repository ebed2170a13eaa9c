"""The helper that receives a machine's memory, as a real process."""

import contextlib
import errno
import hashlib
import io
import json
import os
import resource
import select
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import pytest

import boincvm
from boincvm.hypervisor.qcow2 import write_overlay
from boincvm.hypervisor.qemu.memory_file import MemoryImage
from boincvm.hypervisor.qemu.stream import PAGE, Block, Frame, StreamWriter

pytestmark = pytest.mark.timeout(120)

LIMIT = 30.0
"""Seconds that a helper may take for anything."""
FRAME = Frame(b"QEVM\0\0\0\x03", 2, 0, 4, (Block(b"pc.ram", 8 * PAGE),), b"\x04 state")
PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    " from boincvm.hypervisor.qemu.memory_receiver import main; sys.exit(main(sys.argv[2:]))"
)
PACKAGE = str(Path(boincvm.__file__).parents[1])


def content(value: int) -> bytes:
    return bytes([value]) * PAGE


def stream(*values: int) -> bytes:
    """Return the stream of a machine whose first pages have these values."""
    target = io.BytesIO()
    writer = StreamWriter(target, FRAME)
    writer.begin()
    writer.pages(0, 0, memoryview(b"".join(map(content, values))))
    writer.end()
    return target.getvalue()


class Helper:
    """The process, and our ends of its descriptors."""

    def __init__(self, directory: Path, memory: str = "memory-1", **changes: object) -> None:
        stream, self._stream = os.pipe()
        self._result, result = os.pipe()
        request = {
            "stream": stream, "result": result, "directory": str(directory), "memory": memory,
            "base": None, "idle": False, "seal": [], "merge": None, **changes,
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PROGRAM, PACKAGE, json.dumps(request)],
            pass_fds=(stream, result),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        os.close(stream)
        os.close(result)
        self._reported = b""

    def __enter__(self) -> "Helper":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.communicate(timeout=LIMIT)
        self.end_stream()
        self.close_result()

    def line(self, limit: float = LIMIT) -> dict[str, object] | None:
        """Return the next line; None if none has arrived within `limit` seconds."""
        while b"\n" not in self._reported:
            readable, _, _ = select.select([self._result], [], [], limit)
            if not readable:
                return None
            data = os.read(self._result, 1 << 16)
            assert data, "it ended without an answer"
            self._reported += data
        line, _, self._reported = self._reported.partition(b"\n")
        reported = json.loads(line)
        assert isinstance(reported, dict)
        return reported

    def send(self, data: bytes) -> None:
        """Send no more than a pipe holds; that nobody reads any more is not an error."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._stream, data)

    def end_stream(self) -> None:
        if self._stream >= 0:
            os.close(self._stream)
            self._stream = -1

    def close_result(self) -> None:
        if self._result >= 0:
            os.close(self._result)
            self._result = -1

    def receive(self, data: bytes) -> dict[str, object]:
        """Return its messages about that stream, from "ready" to the end."""
        assert self.line() == {"ready": True}
        self.send(data)
        self.end_stream()
        reported = self.line()
        assert reported is not None
        return reported

    def status(self) -> int:
        """Return its exit status; unread messages are shown."""
        _, words = self.process.communicate(timeout=LIMIT)
        sys.stderr.write(words.decode())
        return self.process.returncode


@pytest.fixture
def helper(tmp_path: Path) -> Iterator[Callable[..., Helper]]:
    """Start a helper that writes into the test's directory."""
    with contextlib.ExitStack() as stack:
        yield lambda *names, **changes: stack.enter_context(
            Helper(tmp_path / "machine", *names, **changes)
        )


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    path = tmp_path / "machine"
    path.mkdir()
    return path


def seal(path: Path) -> dict[str, object]:
    data = path.read_bytes()
    return {"size": len(data), "digest": hashlib.blake2b(data, digest_size=32).hexdigest()}


def restored(machine: Path, name: str) -> bytes:
    with os.fdopen(os.memfd_create("stream"), "w+b") as file:
        MemoryImage.read(machine, name).write_stream(file.fileno())
        file.seek(0)
        return file.read()


def test_memory_is_kept(machine: Path, helper: Callable[..., Helper]) -> None:
    receiver = helper()
    reported = receiver.receive(stream(1, 2, 3))
    assert receiver.status() == 0
    path = machine / "memory-1"
    assert reported == {
        "files": {"memory-1": seal(path)},
        "chain": ["memory-1"],
        "live": 3 * PAGE,
        "written": path.stat().st_size,
    }
    assert os.listdir(machine) == ["memory-1"]
    assert restored(machine, "memory-1") == stream(1, 2, 3)


def test_only_what_changed_is_written_over_a_base(
    machine: Path, helper: Callable[..., Helper]
) -> None:
    helper("memory-1").receive(stream(1, 2, 3, 4, 5))
    before = seal(machine / "memory-1")
    reported = helper("memory-2", base="memory-1").receive(stream(1, 2, 9, 4, 5))
    assert reported["files"] == {"memory-2": seal(machine / "memory-2")}
    assert reported["chain"] == ["memory-1", "memory-2"]
    assert reported["live"] == 5 * PAGE
    assert PAGE < (machine / "memory-2").stat().st_size < 2 * PAGE
    assert restored(machine, "memory-2") == stream(1, 2, 9, 4, 5)
    assert seal(machine / "memory-1") == before


def test_layers_are_sealed_and_merged(
    tmp_path: Path, machine: Path, helper: Callable[..., Helper]
) -> None:
    for name in ("disk-1", "disk-2", "disk-3"):
        write_overlay(machine / name, 1 << 30)
    merged = {"layers": ["disk-1", "disk-2"], "into": "disk-4"}
    reported = helper(seal=["disk-3"], merge=merged).receive(stream(1))
    names = ["disk-3", "disk-4", "memory-1"]
    assert reported["files"] == {name: seal(machine / name) for name in names}
    assert sorted(os.listdir(machine)) == ["disk-1", "disk-2", *names]


def test_it_gives_way_to_all_other_work(machine: Path, helper: Callable[..., Helper]) -> None:
    rude, idle = helper("memory-1"), helper("memory-2", idle=True)
    assert rude.line() == idle.line() == {"ready": True}
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, rude.process.pid) == ours
    assert os.getpriority(os.PRIO_PROCESS, idle.process.pid) == 19


@pytest.mark.parametrize(
    "broken",
    [b"", b"no stream", stream(1, 2)[:-100 - PAGE], stream(1).replace(b"pc.ram", b"no.ram", 1)],
    ids=["empty", "other", "cut", "wrong"],
)  # fmt: skip
def test_a_broken_stream(machine: Path, helper: Callable[..., Helper], broken: bytes) -> None:
    receiver = helper()
    reported = receiver.receive(broken)
    assert sorted(reported) == ["errno", "error"]
    assert reported["errno"] == 0
    assert reported["error"]
    assert receiver.status() == 1
    assert os.listdir(machine) == []


def test_a_full_disk(machine: Path, helper: Callable[..., Helper]) -> None:
    receiver = helper()
    assert receiver.line() == {"ready": True}
    limit = (2 * PAGE, 2 * PAGE)  # Python ignores SIGXFSZ
    resource.prlimit(receiver.process.pid, resource.RLIMIT_FSIZE, limit)
    receiver.send(stream(1, 2, 3, 4))
    receiver.end_stream()
    assert (receiver.line() or {})["errno"] == errno.EFBIG
    assert receiver.status() == 1
    assert os.listdir(machine) == []


def test_a_directory_that_is_not_there(helper: Callable[..., Helper]) -> None:
    receiver = helper()
    assert receiver.receive(stream(1))["errno"] == errno.ENOENT
    assert receiver.status() == 1


def test_a_base_that_is_damaged(machine: Path, helper: Callable[..., Helper]) -> None:
    (machine / "memory-1").write_bytes(bytes(1000))
    receiver = helper("memory-2", base="memory-1")
    assert "memory-1 is damaged" in str(receiver.receive(stream(1))["error"])
    assert receiver.status() == 1
    assert os.listdir(machine) == ["memory-1"]


@pytest.mark.parametrize("name", ["missing", "a link"])
def test_a_layer_that_cannot_be_sealed(
    machine: Path, helper: Callable[..., Helper], name: str
) -> None:
    (machine / "a link").symlink_to("elsewhere")
    (machine / "elsewhere").touch()
    receiver = helper(seal=[name])
    assert receiver.receive(stream(1))["errno"] in (errno.ENOENT, errno.ELOOP)
    assert receiver.status() == 1
    assert sorted(os.listdir(machine)) == ["a link", "elsewhere"]


def test_layers_that_cannot_be_merged(
    tmp_path: Path, machine: Path, helper: Callable[..., Helper]
) -> None:
    write_overlay(machine / "disk-1", 1 << 30)
    write_overlay(machine / "disk-2", 1 << 30)
    with (machine / "disk-2").open("r+b") as file:
        file.seek(3 << 16)  # the first-level table
        file.write(struct.pack(">Q", 1 << 63 | 1 << 40))
    merged = {"layers": ["disk-1", "disk-2"], "into": "disk-3"}
    receiver = helper(seal=["disk-1"], merge=merged)
    assert "outside the file" in str(receiver.receive(stream(1))["error"])
    assert receiver.status() == 1
    assert sorted(os.listdir(machine)) == ["disk-1", "disk-2"]


def test_it_ends_when_nobody_waits_for_the_result(
    machine: Path, helper: Callable[..., Helper], capsys: pytest.CaptureFixture[str]
) -> None:
    receiver = helper()
    assert receiver.line() == {"ready": True}
    receiver.close_result()
    receiver.send(stream(1))
    receiver.end_stream()
    assert receiver.status() == 1
    assert capsys.readouterr().err == ""
