"""Real programs of this host, as a guest runs them: bounded, signalled, and none left behind."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from boincvm.controller.protocol.envelope import Envelope, pack, unpack
from boincvm.controller.protocol.messages import read_to_guest
from boincvm.controller.protocol.program import Request
from boincvm.errors import BoincvmError, ProgramStartError, UsageError
from boincvm.guestlink.guest_paths import WORK
from boincvm.guestlink.program import WINDOW, ProgramEnd
from boincvm.host.process_tree import children
from boincvm.node.commands import NodeCommands
from boincvm.node.host_programs import HostProgram, HostPrograms
from support.observed import Observed

pytestmark = pytest.mark.timeout(120)
LIMIT = 30.0


class Received(Observed):
    """A listener; `grants`: whether it gives credit for everything that arrived, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.texts = {"stdout": bytearray(), "stderr": bytearray()}
        self.calls = 0
        self.taken = 0
        self.fraction: float | None = None
        self.status_bytes = 0
        self.grants: HostProgram | None = None

    @property
    def stdout(self) -> bytes:
        return bytes(self.texts["stdout"])

    def output(self, stream: str, data: bytes) -> None:
        assert data
        self.calls += 1
        self.texts[stream] += data
        self._granted(len(data))

    def input_taken(self, count: int) -> None:
        self.taken += count
        self._news.set()

    def status_channel(self, fraction: float | None, count: int) -> None:
        self.fraction = self.fraction if fraction is None else fraction
        self.status_bytes += count
        self._granted(count)

    def _granted(self, count: int) -> None:
        if self.grants is not None:
            self.grants.grant(count)
        self._news.set()


class Host:
    """The programs of a host, each with its listener."""

    def __init__(self, directory: Path) -> None:
        self.work, self.status_channels = directory / "work", directory / "status-channels"
        self.work.mkdir()
        self.status_channels.mkdir()
        self.programs = HostPrograms(self.work, self.status_channels)

    def start(
        self, *argv: str, grants: bool = True, **more: object
    ) -> tuple[HostProgram, Received]:
        received = Received()
        request = Request(argv, **more)  # type: ignore[arg-type]
        program = self.programs.start(request, received)
        received.grants = program if grants else None
        return program, received

    def shell(self, script: str, **more: object) -> tuple[HostProgram, Received]:
        return self.start("sh", "-c", script, **more)  # type: ignore[arg-type]


@pytest_asyncio.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    """Yield a host; after the test no process, no descriptor and no FIFO is left."""
    made = Host(tmp_path)
    await end(made.shell("exit 0")[0])  # what asyncio opens once is open
    before, processes = set(os.listdir("/proc/self/fd")), children(os.getpid())
    yield made
    assert await made.programs.end() == 0
    assert children(os.getpid()) == processes
    assert set(os.listdir("/proc/self/fd")) == before
    assert list(made.status_channels.iterdir()) == []


async def end(program: HostProgram) -> ProgramEnd:
    async with asyncio.timeout(LIMIT):
        return await program.wait()


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


# One program.


async def test_it_runs(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOINCVM_TOKEN", "secret")
    monkeypatch.setenv("OURS", "seen")
    (host.work / "sub").mkdir()
    script = 'cat; pwd; echo "$PWD $OURS $GIVEN $BOINCVM_TOKEN."; echo error >&2; exit 3'
    more = {"directory": "sub", "environment": {"GIVEN": "given"}, "stdin": b"input\n"}
    program, received = host.shell(script, **more)
    found = await end(program)
    assert (found.code, found.signal) == (3, None)
    there = f"{host.work}/sub"
    assert received.stdout.decode() == f"input\n{there}\n{there} seen given .\n"
    assert received.texts["stderr"] == b"error\n"
    assert received.taken == 6


async def test_what_it_used(host: Host) -> None:
    script = "held = bytearray(200 << 20)\nfor n in range(2_000_000): pass"
    program, _ = host.start("python3", "-c", script)
    found = await end(program)
    assert found.code == 0
    assert found.user_time > 0.02
    assert found.system_time > 0
    assert 200 << 20 < found.max_rss < 400 << 20


@pytest.mark.parametrize(
    ("request_", "kind", "words"),
    [
        (Request(("nosuch",)), ProgramStartError, "no such program in the guest: nosuch"),
        (Request(("./nosuch",)), ProgramStartError, "no such program in the guest: nosuch"),
        (Request(("sh",), {"PATH": "/nowhere:"}), ProgramStartError, "no such program"),
        (Request(("/etc/passwd",)), ProgramStartError, "cannot be executed"),
        (Request(("/",)), ProgramStartError, "cannot be executed"),
        (Request(("true",), directory="nosuch"), ProgramStartError, "cannot start in"),
        (Request(("true",), directory="../.."), UsageError, "not a path in the guest"),
        (Request(("true",), directory="/etc"), UsageError, "not a path in the guest"),
        (Request(("a" * 5000,)), ProgramStartError, "File name too long; a path has at most"),
        (Request(("true", "a" * (1 << 20))), ProgramStartError, "one has 1048576 bytes"),
        (Request(("plain",), {"PATH": "."}), ProgramStartError, "chmod +x"),
        (Request(("true", "\ud800")), ProgramStartError, "cannot execute"),
        (Request(("true",), {"A": "a\0b"}), ProgramStartError, "NUL byte"),
    ],
)
async def test_what_cannot_start(
    host: Host, request_: Request, kind: type[BoincvmError], words: str
) -> None:
    (host.work / "plain").touch(0o644)
    with pytest.raises(kind) as failure:
        host.programs.start(request_, Received())
    assert words in f"{failure.value.message}; {failure.value.hint}"


async def test_a_directory_as_a_machine_has_it(host: Host) -> None:
    (host.work / "a").mkdir()
    program, received = host.start("pwd", directory=str(WORK / "a"))
    await end(program)
    assert received.stdout.decode() == f"{host.work}/a\n"


# Output.


async def test_who_does_not_listen_is_not_flooded(host: Host) -> None:
    """The program waits, and small grants do not cause small reads."""
    size = 4 * WINDOW + 7
    program, received = host.start("head", "-c", str(size), "/dev/zero", grants=False)
    await received.until(lambda: len(received.stdout) == WINDOW)
    other, _ = host.shell("exit 0")
    await end(other)
    for _ in range(1000):
        program.grant(1)
    other, _ = host.shell("exit 0")
    await end(other)
    assert len(received.stdout) == WINDOW
    assert not program.ended.done()
    program.grant(WINDOW - 1000)
    received.grants = program
    assert (await end(program)).code == 0
    assert received.stdout == bytes(size)
    assert received.calls < size >> 13


async def test_all_that_it_wrote_comes_without_credit_when_it_ends(host: Host) -> None:
    script = f"head -c {WINDOW} /dev/zero; head -c 60000 /dev/zero; echo end >&2"
    program, received = host.shell(script, grants=False)
    assert (await end(program)).code == 0
    assert len(received.stdout) == WINDOW + 60000
    assert received.texts["stderr"] == b"end\n"


async def test_a_stream_that_ends_early(host: Host) -> None:
    program, received = host.shell("exec 2>&-; echo on; read line; echo $line", keep_input=True)
    await received.until(lambda: received.stdout)
    program.feed(b"more\n")
    assert (await end(program)).code == 0
    assert received.stdout == b"on\nmore\n"


async def test_a_pipe_that_was_given_away_holds_nobody(host: Host) -> None:
    program, received = host.shell("echo ready; read line", keep_input=True)
    await received.until(lambda: received.stdout)
    pid = program._guarded.program
    held = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY)
    try:
        program.end_input()
        assert (await end(program)).code == 1
    finally:
        os.close(held)


# Its status channel.


async def test_progress(host: Host) -> None:
    script = 'echo fraction-done 0.25 >"$BOINCVM_STATUS_CHANNEL"; read line; exit 0'
    program, received = host.shell(script, keep_input=True)
    await received.until(lambda: received.fraction)
    assert (received.fraction, received.status_bytes) == (0.25, len("fraction-done 0.25\n"))
    program.end_input()
    await end(program)


async def test_a_status_channel_that_floods_waits(host: Host) -> None:
    script = 'exec >"$BOINCVM_STATUS_CHANNEL"; yes'
    program, received = host.shell(script, grants=False)
    await received.until(lambda: received.status_bytes == WINDOW)
    other, _ = host.shell("exit 0")
    await end(other)
    assert received.status_bytes == WINDOW
    program.signal(9)
    assert (await end(program)).signal == 9


# Input.


async def test_input_that_follows(host: Host) -> None:
    program, received = host.start("cat", keep_input=True, stdin=b"begin")
    data = bytes(n % 251 for n in range(1 << 20))
    for at in range(0, len(data), 1 << 16):
        program.feed(data[at : at + (1 << 16)])
    program.end_input()
    assert (await end(program)).code == 0
    assert received.stdout == b"begin" + data
    assert received.taken == len(data) + 5


async def test_who_does_not_read_takes_nothing(host: Host) -> None:
    program, received = host.shell("echo ready; sleep 1000", keep_input=True)
    await received.until(lambda: received.stdout)
    program.feed(bytes(1 << 20))
    await received.until(lambda: received.taken)
    other, _ = host.shell("exit 0")
    await end(other)
    assert received.taken <= 1 << 17
    program.signal(9)
    await end(program)


async def test_who_closes_its_input(host: Host) -> None:
    program, received = host.shell("exec <&-; echo closed; kill -STOP $$; exit 5", keep_input=True)
    await received.until(lambda: received.stdout)
    program.feed(b"for nobody")
    program.feed(b"and more")
    other, _ = host.shell("exit 0")
    await end(other)
    program.feed(b"and more")
    program.end_input()
    program.end_input()
    program.signal(signal.SIGCONT)
    assert (await end(program)).code == 5
    program.feed(b"too late")


# Signals, and what is left.


async def test_a_signal_is_for_the_whole_group(host: Host) -> None:
    script = """
    (trap 'echo child; exit' TERM; echo ready; while :; do sleep 0.01; done) &
    trap 'wait; echo parent; exit 7' TERM
    echo ready; wait"""
    program, received = host.shell(script)
    await received.until(lambda: received.stdout.count(b"ready") == 2)
    program.signal(15)
    found = await end(program)
    assert received.stdout.endswith(b"child\nparent\n")
    assert found.code == 7
    program.signal(15)
    program.signal(9)


@pytest.mark.parametrize("number", [1, 2, 15, 9])
async def test_ended_by_a_signal(host: Host, number: int) -> None:
    program, received = host.shell("echo ready; exec sleep 1000")
    await received.until(lambda: received.stdout)
    program.signal(0)
    program.signal(number)
    found = await end(program)
    assert (found.code, found.signal) == (None, number)


async def test_what_stands_still_is_killed(host: Host) -> None:
    program, received = host.shell("echo ready; kill -STOP $$")
    await received.until(lambda: received.stdout)
    program.signal(9)
    assert (await end(program)).signal == 9


DAEMON = "setsid sh -c 'echo $$; exec sleep 1000' & "


async def test_nothing_escapes_a_kill(host: Host) -> None:
    program, received = host.shell(f"({DAEMON}); sleep 1000")
    await received.until(lambda: received.stdout.endswith(b"\n"))
    assert is_there(int(received.stdout))
    program.signal(9)
    assert (await end(program)).signal == 9
    assert not is_there(int(received.stdout))


async def test_what_it_leaves_behind_ends_with_it(host: Host) -> None:
    program, received = host.shell(f"({DAEMON}) | (read pid; echo $pid)")
    assert (await end(program)).code == 0
    assert not is_there(int(received.stdout))


async def test_somebody_kills_the_guard(host: Host) -> None:
    program, received = host.shell("echo $$; exec sleep 1000")
    await received.until(lambda: received.stdout)
    os.kill(program._guarded.guard.pid, signal.SIGKILL)
    assert (await end(program)).signal == 9


# The guest's end.


async def test_all_end_with_the_guest(host: Host) -> None:
    polite, first = host.shell(
        "trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.01; done"
    )
    deaf, second = host.shell("trap '' TERM; echo ready; while :; do sleep 0.01; done")
    still, third = host.shell("echo ready; kill -STOP $$")
    for received in (first, second, third):
        await received.until(lambda received=received: received.stdout)  # type: ignore[misc]
    assert await host.programs.end() == 0
    assert (await end(polite)).code == 4
    assert first.stdout == b"ready\nbye\n"
    assert (await end(deaf)).signal == 9
    assert (await end(still)).signal == 15
    with pytest.raises(UsageError, match="about to end"):
        host.shell("exit 0")


async def test_one_that_does_not_end_is_given_up(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boincvm.node.host_programs.GRACE", 0.01)
    monkeypatch.setattr("boincvm.node.host_programs.KILL_LIMIT", 0.01)
    program, received = host.shell("echo ready; exec sleep 1000")
    await received.until(lambda: received.stdout)
    with monkeypatch.context() as patch:
        patch.setattr(HostProgram, "signal", lambda *_: None)
        assert await host.programs.end() == 1
    with pytest.raises(BoincvmError, match="does not end"):
        await end(program)
    program._guarded.guard.wait(LIMIT)  # whose control is closed, and so it ends all


# As commands of a guest.


class Recorder:
    """Records what a guest's commands send."""

    def __init__(self, host: Host, group: asyncio.TaskGroup) -> None:
        self.words: list[Envelope] = []
        self._results: asyncio.Queue[Envelope] = asyncio.Queue()
        self.commands = NodeCommands("1", host.programs.start, self._record, group)

    def _record(self, body: bytes) -> None:
        word = unpack(body)
        self.words.append(word)
        if word.name == "CMD_RESULT":
            self._results.put_nowait(word)

    def run(self, *argv: str, **more: object) -> None:
        table = {"cmd-id": "c", "instance": "1", "argv": argv, "stdout": 0, "stderr": 0, **more}
        self.commands.handle(read_to_guest(pack("CMD_RUN", table)))

    async def result(self) -> dict[str, object]:
        async with asyncio.timeout(LIMIT):
            return dict((await self._results.get()).fields)


async def test_its_time_is_over(host: Host) -> None:
    async with asyncio.TaskGroup() as group:
        reported = Recorder(host, group)
        reported.run("sh", "-c", f"({DAEMON}); sleep 1000", timeout=0.3)
        result = await reported.result()
    assert (result["signal"], result["timed-out"]) == (9, True)


async def test_it_begins_once(host: Host) -> None:
    async with asyncio.TaskGroup() as group:
        reported = Recorder(host, group)
        for _ in range(3):
            reported.run("sh", "-c", "echo once >>file")
        assert (await reported.result())["code"] == 0
        reported.run("sh", "-c", "echo once >>file")
        assert (await reported.result())["code"] == 0
    assert (host.work / "file").read_text() == "once\n"


async def test_a_program_that_there_is_not(host: Host) -> None:
    async with asyncio.TaskGroup() as group:
        reported = Recorder(host, group)
        reported.run("nosuch")
        assert "no such program" in str((await reported.result())["error"])
