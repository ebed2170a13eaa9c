"""The guest's agent, as far as it runs outside a guest."""

import _posixsubprocess
import errno
import os
import signal
import time
from pathlib import Path

import pytest

from boincvm.bus.stomp import Frame, Parser
from boincvm_agent import machine
from boincvm_agent.control_group import ControlGroup
from boincvm_agent.link import HostGoneError, Link
from boincvm_agent.port import Port
from boincvm_agent.prepared import Prepared
from boincvm_agent.program import Program
from boincvm_agent.spawn import CannotStartError
from support.bench import until

pytestmark = pytest.mark.timeout(30)


class NoGroup(ControlGroup):
    """Stands for the control group, which only a guest's agent may create."""

    fails = False

    def __init__(self) -> None: ...

    def enter(self) -> None: ...

    def leave(self) -> None: ...

    def kill(self) -> None:
        if self.fails:
            raise OSError(errno.EIO, "Input/output error")

    def cpu_time(self) -> tuple[int, int]:
        return 7, 8

    def remove(self) -> bool:
        return True


class Unprepared(Prepared):
    """Has no prepared control groups; `kills` is the kernel's count."""

    kills = 0

    def take_group(self) -> ControlGroup:
        return NoGroup()

    def _make_group(self) -> ControlGroup:
        return NoGroup()

    def out_of_memory_kills(self) -> int:
        return self.kills


class Recorder(Link):
    """A link that records its frames."""

    def __init__(self) -> None:
        super().__init__(Port(-1))

    def frames(self) -> list[Frame]:
        data = b"".join(bytes(piece) for piece in self._queue)
        return Parser().feed(data)


def start(
    link: Link, *argv: bytes, directory: bytes = b"/", prepared: Prepared | None = None
) -> Program:
    path = [b"PATH=/usr/bin:/bin"]
    return Program(link, prepared or Unprepared(), "1", directory, list(argv), path, 1 << 20)


@pytest.fixture(params=["unprepared", "prepared"])
def prepared(request: pytest.FixtureRequest) -> Prepared:
    made = Unprepared()
    if request.param == "prepared":
        made.prepare()
    return made


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def is_inherited(descriptor: int) -> bool:
    """Tell whether this process has inherited it, so that its children do, too."""
    try:
        return os.get_inheritable(descriptor)
    except OSError:  # with which the directory was listed
        return False


def children() -> set[str]:
    """Return children of any thread of this process, including dead ones."""
    tasks = Path("/proc/self/task").iterdir()
    return {child for task in tasks for child in (task / "children").read_text().split()}


@pytest.mark.parametrize(
    ("argv", "directory", "number", "where"),
    [
        (b"no-such-program", b"/", errno.ENOENT, "program"),
        (b"/etc/passwd", b"/", errno.EACCES, "program"),
        (b"true", b"/nowhere", errno.ENOENT, "directory"),
        (b"true", b"/etc/passwd", errno.ENOTDIR, "directory"),
    ],
)
def test_why_a_program_does_not_start(
    argv: bytes, directory: bytes, number: int, where: str, prepared: Prepared
) -> None:
    with pytest.raises(CannotStartError) as failure:
        start(Recorder(), argv, directory=directory, prepared=prepared)
    assert (failure.value.number, failure.value.where) == (number, where)


def test_what_the_kernel_says_of_a_file(tmp_path: Path, prepared: Prepared) -> None:
    (tmp_path / "empty").touch(0o755)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "open").touch(0o755)
    with (tmp_path / "open").open("w"):
        for name, number in (
            ("empty", errno.ENOEXEC),
            ("loop", errno.ELOOP),
            ("open", errno.ETXTBSY),
            ("a" * 300, errno.ENAMETOOLONG),
            (".", errno.EACCES),
            ("empty/in", errno.ENOTDIR),
        ):
            with pytest.raises(CannotStartError) as failure:
                start(Recorder(), os.fsencode(tmp_path / name), prepared=prepared)
            assert (name, failure.value.number) == (name, number)
            assert failure.value.where == "program"


@pytest.mark.parametrize("is_prepared", [False, True])
def test_nothing_is_left_of_what_does_not_start(is_prepared: bool) -> None:
    before, prepared = (open_descriptors(), children()), Unprepared()
    if is_prepared:
        prepared.prepare()
    with pytest.raises(CannotStartError):
        start(Recorder(), b"no-such-program", prepared=prepared)
    assert (open_descriptors(), children()) == before


def test_a_missing_interpreter(tmp_path: Path, prepared: Prepared) -> None:
    path = tmp_path / "prog"
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o755)
    with pytest.raises(CannotStartError) as failure:
        start(Recorder(), os.fsencode(path), prepared=prepared)
    assert (failure.value.number, failure.value.where) == (errno.ENOENT, "interpreter")


def test_the_first_that_may_be_executed_is(tmp_path: Path, prepared: Prepared) -> None:
    for number, mode in enumerate((0o644, 0o755, 0o755)):
        location = tmp_path / str(number)
        location.mkdir()
        (location / "prog").write_text(f"#!/bin/sh\necho {number} $1 $WORD; pwd\n")
        (location / "prog").chmod(mode)
    path = b":".join(os.fsencode(tmp_path / name) for name in ("none", "0", "1", "2"))
    environment = [b"WORD=a=b\xff", b"PATH=" + path]
    link, argv = Recorder(), [b"prog", b"one two"]
    program = Program(link, prepared, "1", b"/usr", argv, environment, 1 << 20)
    stdout = next(fd for fd, name in program.outputs.items() if name == "stdout")
    end = time.monotonic() + 20
    while stdout in program.outputs:
        program.read_output(stdout)
        assert time.monotonic() < end
    assert b"".join(frame.body for frame in link.frames()) == b"1 one two a=b\xff\n/usr\n"
    reap(program)


def test_what_a_program_finds(prepared: Prepared) -> None:
    program = start(Recorder(), b"sleep", b"100", prepared=prepared)
    location = Path(f"/proc/{program.pid}")
    not_ours = {name for name in open_descriptors() if is_inherited(int(name))}
    expected = {"0", "1", "2"} | not_ours
    # The dynamic linker has libraries open for a moment.
    until(lambda: {path.name for path in (location / "fd").iterdir()} == expected)
    assert os.getsid(program.pid) == program.pid
    status = dict(line.split(":\t") for line in (location / "status").read_text().splitlines())
    ignored = int(status["SigIgn"], 16)
    assert not any(ignored >> (number - 1) & 1 for number in (signal.SIGPIPE, signal.SIGXFSZ))
    os.kill(program.pid, signal.SIGKILL)
    reap(program)


def test_too_few_descriptors_leave_none_open(monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_descriptors()

    def no_process(*_: object) -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(_posixsubprocess, "fork_exec", no_process)
    with pytest.raises(CannotStartError) as failure:
        start(Recorder(), b"true")
    assert (failure.value.number, failure.value.where) == (errno.EAGAIN, "agent")
    assert open_descriptors() == before


def reap(program: Program) -> None:
    os.waitpid(program.pid, 0)
    program.close()


def test_a_signal_to_a_program_that_has_just_gone() -> None:
    program = start(Recorder(), b"true")
    os.waitpid(program.pid, 0)
    program.signal(signal.SIGINT)
    program.close()


def test_output_is_read_no_further_than_its_credit() -> None:
    link = Recorder()
    argv = [b"echo", b"0123456789"]
    program = Program(link, Unprepared(), "1", b"/", argv, [b"PATH=/bin"], 4)
    stdout = next(fd for fd, name in program.outputs.items() if name == "stdout")
    end = time.monotonic() + 20
    while not link.frames():
        program.read_output(stdout)
        assert time.monotonic() < end
    assert [frame.body for frame in link.frames()] == [b"0123"]
    without_credit = program.may_read
    program.grant(100)
    assert (without_credit, program.may_read) == (False, True)
    reap(program)


def test_input_that_nobody_reads_is_dropped() -> None:
    program = start(Recorder(), b"true")
    os.waitpid(program.pid, 0)
    program.feed(b"x" * 10, ends=False)
    program.write_input()
    assert program.stdin_waiting == -1
    program.feed(b"more", ends=True)
    program.close()


def test_a_broken_stream_has_ended() -> None:
    program = start(Recorder(), b"true")
    broken = os.open("/proc/self/mem", os.O_RDONLY)
    program.outputs[broken] = "stdout"
    assert not program.read_output(broken)
    assert broken not in program.outputs
    reap(program)


def test_what_cannot_be_killed_does_not_stop_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    program = start(Recorder(), b"true")
    os.waitpid(program.pid, 0)
    monkeypatch.setattr(NoGroup, "fails", True)
    program.close()
    assert program.outputs == {}


@pytest.mark.parametrize(
    ("script", "ends"),
    [(b"exit 7", {"code": "7"}), (b"kill -9 $$", {"signal": "9"}), (b"exit 0", {"code": "0"})],
)
def test_what_is_reported_of_an_end(
    script: bytes, ends: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, prepared, directory = Recorder(), Unprepared(), os.fsencode(tmp_path)
    monkeypatch.setattr(machine, "WORK", directory)
    argv, path = [b"sh", b"-c", script], [b"PATH=/bin"]
    prepared.kills = 3
    program = Program(link, prepared, "1", directory, argv, path, 1 << 20)
    _, status = os.waitpid(program.pid, 0)
    prepared.kills = 5
    program.end(status, 900)
    program.report()
    (frame,) = link.frames()
    assert int(frame.headers.pop("disk-free")) > 0
    assert frame.headers == {
        "destination": "/host",
        "message": "exit",
        "call": "1",
        "user-us": "7",
        "system-us": "8",
        "max-rss-kib": "900",
        "oom-kills": "2",
        **ends,
    }
    program.close()


def test_a_port_that_is_gone() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    with pytest.raises(HostGoneError):
        Link(Port(reader)).read()
    os.close(reader)
    with pytest.raises(HostGoneError):
        Link(Port(reader)).read()
    link = Link(Port(reader))
    link.beat()
    with pytest.raises(HostGoneError):
        link.write()
