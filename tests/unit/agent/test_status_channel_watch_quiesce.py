"""The agent's parts that are imported on demand: status channel, watched files, quiescing."""

import errno
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from boincvm.bus.stomp import Frame, Parser, encode
from boincvm_agent import status_channel as status_channel_module
from boincvm_agent import watch as watch_module
from boincvm_agent.control_group import ControlGroup
from boincvm_agent.link import READ_SIZE, Link
from boincvm_agent.port import Port
from boincvm_agent.prepared import Prepared
from boincvm_agent.program import Program
from boincvm_agent.quiesce import Quiesce
from boincvm_agent.status_channel import StatusChannel
from boincvm_agent.watch import Watch, Watches

pytestmark = pytest.mark.timeout(30)
LIMIT = 20.0


class Recorder(Link):
    """A link that records its frames."""

    def __init__(self) -> None:
        super().__init__(Port(-1))

    def frames(self) -> list[Frame]:
        frames = Parser().feed(b"".join(bytes(piece) for piece in self._queue))
        self._queue.clear()
        self._queued = 0
        return frames


class NoGroup(ControlGroup):
    """Stands for the control group, which only a guest's agent may create."""

    def __init__(self) -> None: ...

    def enter(self) -> None: ...

    def leave(self) -> None: ...

    def kill(self) -> None: ...

    def remove(self) -> bool:
        return True


class Unprepared(Prepared):
    """Has no prepared control groups."""

    def take_group(self) -> ControlGroup:
        return NoGroup()

    def out_of_memory_kills(self) -> int:
        return 0


# The status channel.


@pytest.fixture
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(status_channel_module, "DIRECTORY", str(tmp_path / "run"))
    return tmp_path / "run"


def test_what_was_said_is_read_to_its_end_and_the_fifo_is_gone(location: Path) -> None:
    status_channel = StatusChannel("7")
    link = Recorder()
    script = b"for n in 1 2; do echo $n >%b; done" % os.fsencode(status_channel.path)
    path = [b"PATH=/bin"]
    argv = [b"sh", b"-c", script]
    program = Program(link, Unprepared(), "7", b"/", argv, path, 1 << 20, status_channel)
    os.waitpid(program.pid, 0)
    program.end(0, 0)
    assert os.listdir(location) == []
    while not program.is_over:
        for descriptor in list(program.outputs):
            program.read_output(descriptor)
    sent = [frame.body for frame in link.frames() if frame.headers["message"] == "status-channel"]
    assert b"".join(sent) == b"1\n2\n"


def test_a_status_channel_that_cannot_be_made_leaves_nothing(
    location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "chmod", no_room)
    with pytest.raises(OSError, match="No space"):
        StatusChannel("7")
    assert os.listdir(location) == []
    assert os.listdir("/proc/self/fd") == before


def test_a_status_channel_that_the_program_has_removed(location: Path) -> None:
    status_channel = StatusChannel("7")
    (location / "7/status-channel").unlink()
    (location / "7/other").touch()
    status_channel.end()
    status_channel.end()
    os.close(status_channel.descriptor)
    assert os.listdir(location / "7") == ["other"]


# Watched files.


@pytest.fixture
def signals() -> Iterator[int]:
    """Read the signal numbers as the agent does."""
    before = signal.getsignal(signal.SIGIO)
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    wakeup = signal.set_wakeup_fd(writer)
    yield reader
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGIO, before)
    os.close(reader)
    os.close(writer)


def has_signals(reader: int, seconds: float = 0.0) -> bytes:
    ready, _, _ = select.select([reader], [], [], seconds)
    return os.read(reader, 4096) if ready else b""


def watch_fraction(link: Link, directory: Path, path: bytes = b"fraction") -> Watches:
    watches = Watches(link)
    watches.add(Watch(link, "7", "0", os.fsencode(directory), path))
    return watches


def test_each_kind_of_change_is_noticed_once_until_the_next_look(
    tmp_path: Path, signals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "_PAUSE", 0.0)
    link = Recorder()
    file, new = tmp_path / "sub/fraction", tmp_path / "sub/new"
    watches = watch_fraction(link, tmp_path, b"sub/fraction")
    changes = [
        lambda: (tmp_path / "sub").mkdir(),
        lambda: file.write_bytes(b"0.1"),
        lambda: file.write_bytes(b"0.2"),
        lambda: (new.write_bytes(b"0.3"), new.rename(file)),
        lambda: os.utime(file, ns=(1, 1)),
    ]
    for change in changes:
        assert has_signals(signals) == b""
        change()
        watches.notice(has_signals(signals, LIMIT))
        assert watches.due is not None
        for _ in range(100):
            (tmp_path / "other").write_bytes(b"x")
        has_signals(signals)  # at most one more: that of the directory above
        watches.check()
        has_signals(signals)
    tails = [(frame.body, frame.headers["size"]) for frame in link.frames()]
    assert tails == [(b"0.1", "3"), (b"0.2", "3"), (b"0.3", "3"), (b"0.3", "3")]
    watches.drop("7")
    file.write_bytes(b"0.4")
    assert has_signals(signals) == b""


def test_looks_are_a_pause_apart(tmp_path: Path, signals: int) -> None:
    watches = watch_fraction(Recorder(), tmp_path)
    before = time.monotonic()
    watches.check()
    after = time.monotonic()
    watches.notice(bytes([signal.SIGCHLD]))
    assert watches.due is None
    watches.notice(bytes([signal.SIGIO]))
    assert watches.due is not None
    pause = watch_module._PAUSE
    assert before + pause <= watches.due <= max(after + pause, time.monotonic())
    watches.drop("7")


def test_a_kernel_without_notifications(
    tmp_path: Path, signals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Linux does without CONFIG_DNOTIFY: the files are checked once a second."""

    def refuse(*_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(watch_module.fcntl, "fcntl", refuse)
    link = Recorder()
    (tmp_path / "fraction").write_bytes(b"0.1")
    watches = watch_fraction(link, tmp_path)
    for fraction in (b"0.2", b"0.3"):
        assert watches.due is not None
        assert watches.due - time.monotonic() <= watch_module._PAUSE
        (tmp_path / "fraction").write_bytes(fraction)
        watches.check()
    assert [frame.body for frame in link.frames()] == [b"0.1", b"0.2", b"0.3"]
    watches.drop("7")
    watches.check()
    assert watches.due is None


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, signals: int) -> None:
    link = Recorder()
    file = tmp_path / "fraction"
    watches = watch_fraction(link, tmp_path)
    file.symlink_to("/etc/passwd")
    watches.check()
    file.unlink()
    os.mkfifo(file)
    watches.check()
    file.unlink()
    file.mkdir()
    watches.check()
    assert link.frames() == []
    watches.drop("7")


def test_a_last_look_at_the_end_of_the_program(tmp_path: Path, signals: int) -> None:
    before = os.listdir("/proc/self/fd")
    link = Recorder()
    watches = watch_fraction(link, tmp_path)
    (tmp_path / "fraction").write_bytes(b"x" * 5000 + b"end")
    watches.finish("8")
    assert link.frames() == []
    watches.finish("7")
    assert [frame.body for frame in link.frames()] == [b"x" * 4093 + b"end"]
    assert os.listdir("/proc/self/fd") == before


def test_a_link_without_room_is_not_filled_more(tmp_path: Path, signals: int) -> None:
    link = Recorder()
    watches = watch_fraction(link, tmp_path)
    (tmp_path / "fraction").write_bytes(b"1")
    link.send("stdout", "7", {}, bytes(1 << 19))
    watches.check()
    assert watches.due is not None
    assert [frame.headers["message"] for frame in link.frames()] == ["stdout"]
    watches.drop("7")


def test_a_path_that_leads_out(tmp_path: Path) -> None:
    for path in (b"../fraction", b"/etc/passwd", b""):
        with pytest.raises(ValueError, match=r"is not a path|not enough values"):
            Watch(Recorder(), "7", "0", os.fsencode(tmp_path), path)


# Quiet.


def test_quiet_is_the_last_word_and_a_host_that_hangs_up_costs_nothing() -> None:
    local, remote = socket.socketpair()
    wake, waker = os.pipe()
    local.setblocking(False)
    remote.setblocking(False)
    link = Link(Port(local.fileno()))
    link.send("stdout", "7", {}, bytes(1 << 20))  # more than the socket takes at once
    quiet = Quiesce(link, wake)
    quiet.begin()
    link.send("exit", "7", {})
    received: list[Frame] = []
    parser = Parser()
    while not any(frame.headers["message"] == "quiesced" for frame in received):
        received += parser.feed(remote.recv(1 << 20))
        quiet.wait()
    assert [frame.headers["message"] for frame in received] == ["stdout", "quiesced"]
    remote.sendall(encode("MESSAGE", {"message": "attach"}))
    frames: list[Frame] = []
    while not frames:
        _, frames = quiet.wait()
    assert [frame.headers["message"] for frame in frames] == ["attach"]
    remote.close()
    quiet.wait()  # the hang-up, told once
    rounds: list[bool] = []
    waiting = Thread(target=lambda: rounds.extend(iter(lambda: quiet.wait()[0], True)))
    waiting.start()
    waiting.join(0.2)  # a host that is gone would be told of all the time
    assert waiting.is_alive()
    os.write(waker, b"x")
    waiting.join(LIMIT)
    assert not waiting.is_alive()
    assert len(rounds) <= 2
    for descriptor in (wake, waker):
        os.close(descriptor)
    assert link.has_output is False
    quiet.end()
    assert link.has_output is True
    local.close()


def test_quiet_again_and_again() -> None:
    local, remote = socket.socketpair()
    wake, waker = os.pipe()
    local.setblocking(False)
    link = Link(Port(local.fileno()))
    quiet = Quiesce(link, wake)
    before = os.listdir("/proc/self/fd")
    for number in range(3):
        quiet.begin()
        assert quiet.is_on
        remote.sendall(encode("MESSAGE", {"message": "attach"}))
        frames: list[Frame] = []
        while not frames:
            _, frames = quiet.wait()
        quiet.end()
        assert not quiet.is_on
        # What comes now is for the one that is not quiet.
        remote.sendall(encode("MESSAGE", {"message": "run", "call": str(number)}))
        assert [frame.headers["call"] for frame in link.read()] == [str(number)]
    sent = [frame.headers["message"] for frame in Parser().feed(remote.recv(1 << 16))]
    assert sent == ["quiesced"] * 3
    assert os.listdir("/proc/self/fd") == before
    for descriptor in (wake, waker):
        os.close(descriptor)
    local.close()
    remote.close()


def test_words_before_attach_are_not_the_last() -> None:
    """Data that arrives in pieces is read to its end: no event announces the rest again."""
    local, remote = socket.socketpair()
    wake, waker = os.pipe()
    local.setblocking(False)
    link = Link(Port(local.fileno()))
    words = ["stdin", "stdin", "attach"]
    body = bytes(READ_SIZE // 2)  # so they are more than is read at once
    remote.sendall(b"".join(encode("MESSAGE", {"message": word}, body) for word in words))
    quiet = Quiesce(link, wake)
    quiet.begin()
    _, frames = quiet.wait()
    assert [frame.headers["message"] for frame in frames] == words
    for descriptor in (wake, waker):
        os.close(descriptor)
    local.close()
    remote.close()
