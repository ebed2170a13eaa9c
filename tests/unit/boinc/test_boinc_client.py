"""Client against FakeClient: within one process, and as a client starts its app."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from boincvm.boinc import (
    Client,
    Control,
    Event,
    Heartbeat,
    InitDataError,
    SlotBusyError,
    Status,
    client_liveness,
)
from boincvm.boinc.testing import EndKind, FakeClient

pytestmark = pytest.mark.timeout(120)

LIMIT = 20.0
PERIOD = 0.05


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeClient]:
    async with FakeClient(tmp_path / "boinc", period=PERIOD) as fake:
        yield fake


@pytest.fixture
async def client(fake: FakeClient) -> AsyncIterator[Client]:
    client = await Client.open(fake.slot.path)
    yield client
    client.close()
    client.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "boinc-channels"]


async def next_event(client: Client) -> Event:
    return await asyncio.wait_for(client.next_event(), LIMIT)


async def test_each_word_is_an_event_in_order(fake: FakeClient, client: Client) -> None:
    words = [word for word in Control if word is not Control.REREAD_PREFERENCES]
    for word in words:
        fake.send(word)
    received = [await next_event(client) for _ in words]
    assert received == [Event[word.name] for word in words]
    assert [messages.value for messages in fake.sent] == words


async def test_a_cancelled_wait_loses_nothing(fake: FakeClient, client: Client) -> None:
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.next_event(), 0.01)
    waiting = asyncio.ensure_future(client.next_event())
    fake.send(Control.SUSPEND)
    await fake.until(lambda: not fake.control.is_full, LIMIT)
    waiting.cancel()
    await asyncio.wait([waiting])
    if waiting.cancelled():
        assert await next_event(client) is Event.SUSPEND


async def test_heartbeats_and_the_network(fake: FakeClient, client: Client) -> None:
    received: list[Heartbeat] = []
    client.on_heartbeat = received.append
    fake.heartbeat = Heartbeat(1e6, 2e9, network_suspended=True)
    assert await next_event(client) is Event.NETWORK_SUSPENDED
    fake.heartbeat = Heartbeat(1e6, 2e9)
    assert await next_event(client) is Event.NETWORK_RESUMED
    await fake.until(lambda: bool(received) and received[-1] == Heartbeat(1e6, 2e9), LIMIT)


async def test_of_reports_that_wait_the_last_is_sent(tmp_path: Path) -> None:
    async with FakeClient(tmp_path / "boinc", period=30) as fake:
        client = await Client.open(fake.slot.path)
        for cpu in (1.0, 2.0, 3.0):
            client.report(Status(cpu, 0.5, 0.1 * cpu))
        await fake.die()  # from here on the test reads
        fake.read()
        assert [messages.value.cpu_time for messages in fake.statuses] == [1.0]
        while len(fake.statuses) < 2:
            await asyncio.sleep(0.01)
            fake.read()
        assert fake.statuses[-1].value == Status(3.0, 0.5, 0.3)
        client.close()


async def test_preferences_are_read_again(fake: FakeClient, client: Client) -> None:
    assert client.init_data.preferences.cpu_usage_limit == 100
    fake.change_preferences(cpu_usage_limit=25)
    assert await next_event(client) is Event.REREAD_PREFERENCES
    assert client.init_data.preferences.cpu_usage_limit == 25
    (fake.slot.path / "init_data.xml").write_text("nothing")
    fake.send(Control.REREAD_PREFERENCES)
    with pytest.raises(InitDataError):
        await next_event(client)
    assert client.init_data.preferences.cpu_usage_limit == 25


async def test_trickles_and_uploads(fake: FakeClient, client: Client) -> None:
    client.send_trickle_up("progress", "<done>1</done>")
    client.request_upload("out_1")
    await fake.until(lambda: bool(fake.trickle_ups and fake.upload_requests), LIMIT)
    assert fake.trickle_ups[0].value == "<variety>progress</variety>\n<done>1</done>"
    assert fake.upload_requests[0].value == "out_1"
    assert client.upload_status("out_1") is None
    fake.set_upload_status("out_1", 0)
    assert await next_event(client) is Event.UPLOAD_STATUS
    assert client.upload_status("out_1") == 0
    path = fake.send_trickle_down("<stop/>")
    assert await next_event(client) is Event.TRICKLE_DOWN
    assert client.trickle_downs() == [path]


async def test_where_the_task_can_be_seen(fake: FakeClient, client: Client) -> None:
    client.set_web_graphics_url("http://localhost:1/")
    client.set_remote_desktop_address("localhost:5900")
    await fake.until(lambda: len(fake.graphics_replies) == 2, LIMIT)
    values = [messages.value for messages in fake.graphics_replies]
    assert values == [("http://localhost:1/", ""), ("", "localhost:5900")]


async def test_soft_links_of_the_slot(fake: FakeClient, client: Client) -> None:
    fake.slot.link("in", "in_1.dat")
    fake.slot.link("out", "out_1.dat", symbolic=True)
    assert client.resolve("in") == fake.slot.project / "in_1.dat"
    assert client.resolve("out") == fake.slot.project / "out_1.dat"


async def test_the_last_report_reaches_the_client(tmp_path: Path) -> None:
    async with FakeClient(tmp_path / "boinc", period=30) as fake:
        client = await Client.open(fake.slot.path)
        client.report(Status(1, 0, 0.5))
        client.report(Status(2, 2, 1.0))
        client.finish(0)
        client.close()
        fake.read()
        assert fake.statuses[-1].value == Status(2, 2, 1.0)
        assert (fake.slot.path / "boinc_finish_called").read_text() == "0\n"
        assert not (fake.slot.path / "boinc_lockfile").exists()


# The client's end.


async def test_the_client_dies(fake: FakeClient, client: Client) -> None:
    await fake.die()
    assert await next_event(client) is Event.CLIENT_GONE


async def test_the_client_was_dead_before(fake: FakeClient) -> None:
    await fake.die()
    client = await Client.open(fake.slot.path)
    assert await next_event(client) is Event.CLIENT_GONE
    client.close()


@pytest.mark.parametrize("error", [OSError(38, "no such call"), None])
async def test_a_kernel_that_does_not_tell_of_it(
    fake: FakeClient, monkeypatch: pytest.MonkeyPatch, error: OSError | None
) -> None:
    monkeypatch.setattr(client_liveness, "_CHECK_PERIOD", 0.02)
    if error is None:
        monkeypatch.delattr(os, "pidfd_open")
    else:

        def refuse(pid: int) -> int:
            raise error

        monkeypatch.setattr(os, "pidfd_open", refuse)
    client = await Client.open(fake.slot.path)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.next_event(), 0.1)
    monkeypatch.undo()
    monkeypatch.setattr(client_liveness, "_CHECK_PERIOD", 0.02)
    await fake.die()
    assert await next_event(client) is Event.CLIENT_GONE
    client.close()


async def test_a_client_without_a_known_process_goes_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_liveness, "HEARTBEAT_LIMIT", 1.0)
    async with FakeClient(tmp_path / "boinc", period=PERIOD, announce_pid=False) as fake:
        client = await Client.open(fake.slot.path)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.next_event(), 2.0)
        fake.heartbeats = False
        assert await next_event(client) is Event.CLIENT_GONE
        client.close()


class Clock:
    """Stands for the event loop of a process that may be kept from running."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[[], object]) -> Mock:
        self._timers.append((self.now + delay, call))
        return Mock()

    def advance(self, seconds: float) -> None:
        """Let time pass in which this process does not run, and then run what is due."""
        self.now += seconds
        due = [call for at, call in self._timers if at <= self.now]
        self._timers = [timer for timer in self._timers if timer[0] > self.now]
        for call in due:
            call()


def test_a_heartbeat_counts_that_could_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client sent it while this process was stopped, or waited for a processor."""
    clock, gone = Clock(), Mock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    liveness = client_liveness.ClientLiveness(0, gone)
    clock.advance(1000.0)
    liveness.heartbeat()
    for _ in range(29):
        clock.advance(1.0)
    gone.assert_not_called()
    for _ in range(3):
        clock.advance(1.0)
    gone.assert_called_once_with()


async def test_a_client_that_is_there_may_be_silent(
    fake: FakeClient, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_liveness, "HEARTBEAT_LIMIT", 0.1)
    fake.heartbeats = False
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.next_event(), 0.5)


# Standalone.


def no_segment(slot: Path) -> None:
    (slot / "init_data.xml").write_text("<app_init_data><shm_key>-1</shm_key></app_init_data>")


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [(lambda slot: None, "no init_data.xml"), (no_segment, "boinc_mmap_file cannot be opened")],
)
async def test_standalone_all_works_and_nobody_is_told(
    tmp_path: Path, prepare: Callable[[Path], None], reason: str
) -> None:
    prepare(tmp_path)
    client = await Client.open(tmp_path)
    assert client.is_standalone
    assert reason in client.standalone_reason
    client.report(Status(1, 1, 0.5))
    client.set_web_graphics_url("http://localhost/")
    client.send_trickle_up("v", "text")
    client.request_upload("out")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.next_event(), 0.05)
    client.temporary_exit(5, "later")
    client.finish(3, "over")
    client.close()
    files = {path.name for path in tmp_path.iterdir()} - {"init_data.xml"}
    assert files == {
        "boinc_finish_called",
        "boinc_ufr_out",
        "trickle_up.xml",
    }


async def test_an_init_data_of_nobody_leaves_no_lock(tmp_path: Path) -> None:
    (tmp_path / "init_data.xml").write_text("nothing")
    with pytest.raises(InitDataError):
        await Client.open(tmp_path)
    assert not (tmp_path / "boinc_lockfile").exists()


# A process of its own, as the client starts it.

APP = """
import asyncio, os, sys
from boincvm.boinc import Client, Event, Status

async def main():
    client = await Client.open(lock_wait=0.2)
    seen = []
    client.on_heartbeat = lambda beat: client.report(Status(2.5, 1.5, 0.25, other_pid=os.getpid()))
    print("libraries", os.environ["LD_LIBRARY_PATH"], file=sys.stderr, flush=True)
    while True:
        event = await client.next_event()
        print(event.name, file=sys.stderr, flush=True)
        if event is Event.ABORT:
            client.close()
            return 194
        if event in (Event.QUIT, Event.CLIENT_GONE):
            client.close()
            return 0
        if event is Event.RESUME:
            client.finish(0, "all done")
            client.close()
            return 0
        if event is Event.NETWORK_AVAILABLE:
            client.temporary_exit(12, "no room", notice=True)
            client.close()
            return 0

sys.exit(asyncio.run(main()))
"""


async def start_app(fake: FakeClient) -> None:
    await fake.start([sys.executable, "-c", APP])
    assert await fake.status(LIMIT) == Status(2.5, 1.5, 0.25, other_pid=fake.pid)


@pytest.mark.parametrize(
    ("word", "kind", "status", "text"),
    [
        (Control.RESUME, EndKind.FINISHED, 0, "all done"),
        (Control.NETWORK_AVAILABLE, EndKind.TEMPORARY_EXIT, 0, "no room"),
        (Control.QUIT, EndKind.QUIT, 0, ""),
        (Control.ABORT, EndKind.ABORTED, 194, ""),
    ],
)
async def test_an_app_from_start_to_end(
    fake: FakeClient, word: Control, kind: EndKind, status: int, text: str
) -> None:
    await start_app(fake)
    assert "libraries ../../projects/example.org_fake:.:../.." in fake.stderr
    fake.send(Control.SUSPEND)
    fake.send(word, at_tick=True)
    end = await fake.wait(LIMIT)
    assert (end.kind, end.status, end.text) == (kind, status, text)
    assert (end.delay, end.notice) == ((12, True) if text == "no room" else (None, False))
    assert "SUSPEND" in fake.stderr
    assert not (fake.slot.path / "boinc_lockfile").exists()


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGKILL, EndKind.KILLED), (signal.SIGSEGV, EndKind.CRASHED)]
)
async def test_an_app_that_a_signal_ends(fake: FakeClient, number: int, kind: EndKind) -> None:
    await start_app(fake)
    fake.kill(number)
    end = await fake.wait(LIMIT)
    assert (end.kind, end.signal) == (kind, number)
    await start_app(fake)  # the lock went with the process


async def test_an_app_whose_client_dies(fake: FakeClient) -> None:
    await start_app(fake)
    await fake.die()
    assert (await fake.wait(LIMIT)).kind is EndKind.PREMATURE
    assert "CLIENT_GONE" in fake.stderr


async def test_a_second_app_in_the_slot(fake: FakeClient) -> None:
    await start_app(fake)
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", APP, cwd=fake.slot.path, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(other.communicate(), LIMIT)
    assert SlotBusyError.__name__.encode() in errors
    assert fake.is_running


@pytest.mark.parametrize(
    ("program", "kind", "status"),
    [
        ("exit 0", EndKind.PREMATURE, 0),
        ("exit 7", EndKind.FAILED, 7),
        ("echo 3 >boinc_temporary_exit", EndKind.PREMATURE, 0),
        ("printf '999999\\nwhy\\n' >boinc_temporary_exit", EndKind.TEMPORARY_EXIT, 0),
        ("echo 0 >boinc_finish_called; exit 1", EndKind.FAILED, 1),
    ],
)
async def test_what_a_client_makes_of_an_end(
    fake: FakeClient, program: str, kind: EndKind, status: int
) -> None:
    await fake.start(["sh", "-c", program])
    end = await fake.wait(LIMIT)
    assert (end.kind, end.status) == (kind, status)
    assert end.delay == (300 if kind is EndKind.TEMPORARY_EXIT else None)


async def test_an_app_that_reads_nothing(fake: FakeClient) -> None:
    await fake.start(["sleep", "100"])
    fake.send(Control.SUSPEND)
    fake.send(Control.RESUME)
    with pytest.raises(TimeoutError):
        await fake.until(lambda: not fake.control.is_full, 0.3)
    assert [messages.value for messages in fake.sent] == [Control.SUSPEND]


async def test_the_manual_s_examples(tmp_path: Path) -> None:
    manual = Path(__file__).parents[3] / "docs/boinc-library.md"
    blocks = [part.partition("```")[0] for part in manual.read_text().split("```python\n")[1:]]
    app, test = tmp_path / "app.py", tmp_path / "test.py"
    app.write_text(blocks[0])
    test.write_text(blocks[1])
    process = await asyncio.create_subprocess_exec(
        sys.executable, test, app, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), LIMIT)
    assert process.returncode == 0, errors.decode()
