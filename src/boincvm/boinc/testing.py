"""FakeClient: a stand-in for the BOINC client, to run and test apps and wrappers without one."""

import asyncio
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from boincvm.boinc import channels, messages
from boincvm.boinc.channels import Channel
from boincvm.boinc.exit_classification import End, EndKind, classify_exit
from boincvm.boinc.exits import TEMPORARY_EXIT_FILE
from boincvm.boinc.messages import Control, Heartbeat, Status
from boincvm.boinc.testing_slot import PROJECT, FakeSlot, Value

__all__ = ["End", "EndKind", "FakeClient", "FakeSlot", "Stamped"]

Decoded = TypeVar("Decoded")
_READS_TO_THE_END = (
    [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"]
    if sys.platform == "win32"
    else ["cat"]
)


@dataclass(frozen=True, slots=True)
class Stamped(Generic[Decoded]):
    """A message and the time at which it was sent."""

    at: float
    """Seconds of time.monotonic()."""
    value: Decoded


class FakeClient:
    """A client with one task, for use as `async with FakeClient(directory) as client`.

    Once every `period` seconds it does what a client does: it sends a heartbeat and waiting
    messages, and reads those of the app. Limits of time, memory and disk, and the kill of an app
    that reads nothing, are not imitated.
    """

    def __init__(
        self,
        directory: Path,
        *,
        period: float = 1.0,
        init_data: Mapping[str, Value] | None = None,
        announce_pid: bool = True,
    ) -> None:
        """Create one; `init_data` overrides elements of init_data.xml by name.

        `announce_pid`: whether the app learns the client's process (a stand-in that `die` ends).
        """
        self.period = period
        self.heartbeats = True
        """Set to False to send no heartbeats."""
        self.heartbeat = Heartbeat()
        """The heartbeat that is sent."""
        self.statuses: list[Stamped[Status]] = []
        """Statuses that the app sent."""
        self.trickle_ups: list[Stamped[str]] = []
        """Texts of the trickles that the app sent."""
        self.upload_requests: list[Stamped[str]] = []
        """Logical names that the app asked to upload."""
        self.graphics_replies: list[Stamped[tuple[str, str]]] = []
        """Pairs of web graphics URL and remote desktop address."""
        self.sent: list[Stamped[Control]] = []
        """Control messages, with the time at which the app could first see them."""
        self._announce_pid = announce_pid
        self._waiting: deque[Control] = deque()
        self._notices: list[str] = []
        self._changed = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._pid_holder: asyncio.subprocess.Process | None = None
        self._ticking: asyncio.Task[None] | None = None
        self.slot = FakeSlot(directory, init_data or {})
        self._segment = self.slot.make_segment()
        memory = self._segment.memory
        self.control = Channel(memory, channels.CONTROL)
        self._heartbeat_channel = Channel(memory, channels.HEARTBEAT)
        self._status_channel = Channel(memory, channels.APP_STATUS)
        self._trickle_up = Channel(memory, channels.TRICKLE_UP)
        self._trickle_down = Channel(memory, channels.TRICKLE_DOWN)
        self._graphics = Channel(memory, channels.GRAPHICS_REPLY)

    async def __aenter__(self) -> Self:
        if self._announce_pid:
            # It ends when we do: its input is a pipe that only we hold open.
            self._pid_holder = await asyncio.create_subprocess_exec(
                *_READS_TO_THE_END, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
            )
            self.slot.values["client_pid"] = self._pid_holder.pid
            self.slot.write_init_data()
        self._ticking = asyncio.create_task(self._tick_on())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.die()
        if self._process is not None:
            with suppress(ProcessLookupError):  # it has ended and was reaped
                self._process.kill()
            await self._process.wait()
        self._segment.close()

    # The task.

    @property
    def pid(self) -> int:
        """Return the app's process id. Raises RuntimeError before `start`."""
        return self._app().pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(
        self, argv: Sequence[str | Path], *, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start the app as a client does; may be called again when it has ended.

        It runs in the slot, with our own environment plus `environment`; LD_LIBRARY_PATH, which
        Windows has not, begins with the project's directory, the slot and the BOINC directory.
        Output is discarded, errors go to stderr.txt. Raises OSError.
        """
        if self.is_running:
            raise RuntimeError("the app still runs")
        # The finish file stays: a client does not remove that of a killed app either.
        (self.slot.path / TEMPORARY_EXIT_FILE).unlink(missing_ok=True)
        self._segment.memory[:] = bytes(channels.SEGMENT_SIZE)
        self._waiting.clear()
        self.sent.clear()
        merged = {**os.environ, **(environment or {})}
        if sys.platform != "win32":
            libraries = f"../../projects/{PROJECT}:.:../.."
            former = merged.get("LD_LIBRARY_PATH")
            merged["LD_LIBRARY_PATH"] = f"{libraries}:{former}" if former else libraries
        with (self.slot.path / "stderr.txt").open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=self.slot.path,
                env=merged,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    async def wait(self, limit: float = 60.0) -> End:
        """Return how a client would classify the app's end.

        Raises TimeoutError after `limit` seconds.
        """
        process = self._app()
        async with asyncio.timeout(limit):
            return_code = await process.wait()
        self.read()  # the last messages
        return classify_exit(self.slot.path, return_code, [message.value for message in self.sent])

    def kill(self, number: int | None = None) -> None:
        """Kill only the app's process, or send it the signal `number`."""
        if number is None:
            self._app().kill()
        else:
            self._app().send_signal(number)

    @property
    def stderr(self) -> str:
        """Return what the app has written to stderr.txt."""
        path = self.slot.path / "stderr.txt"
        return path.read_text(errors="replace") if path.exists() else ""

    def _app(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the app was not started")
        return self._process

    # From the client.

    def send(self, control: Control, *, at_tick: bool = False) -> None:
        """Send immediately if the channel is free, otherwise at the first tick at which it is.

        With `at_tick` it waits for the next tick, as clients do with most messages; what a person
        requests through the manager, such as abort, is sent immediately.
        """
        self._waiting.append(control)
        if not at_tick:
            self._send_controls()

    def change_preferences(self, **preferences: Value) -> None:
        """Rewrite elements of <global_preferences> in init_data.xml, and notify the app."""
        self.slot.preferences.update(preferences)
        self.slot.write_init_data()
        self.send(Control.REREAD_PREFERENCES)

    def send_trickle_down(self, text: str) -> Path:
        """Put a message from the server into the slot, and notify the app at the next tick."""
        path = self.slot.add_trickle_down(text)
        self._notices.append(messages.NEW_TRICKLE_DOWN)
        return path

    def set_upload_status(self, name: str, status: int) -> None:
        """Report the result of an upload (0 for success) at the next tick."""
        self.slot.set_upload_status(name, status)
        self._notices.append(messages.NEW_UPLOAD_STATUS)

    async def die(self) -> None:
        """Simulate the client's death: no heartbeats, nothing read, its process dead."""
        if self._ticking is not None:
            ticking, self._ticking = self._ticking, None
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking
        if self._pid_holder is not None:
            self._pid_holder.kill()
            await self._pid_holder.communicate()
            self._pid_holder = None

    # From the app.

    async def status(self, limit: float = 30.0) -> Status:
        """Wait for the next status. Raises TimeoutError after `limit` seconds."""
        count = len(self.statuses)
        await self.until(lambda: len(self.statuses) > count, limit)
        return self.statuses[-1].value

    async def until(self, predicate: Callable[[], bool], limit: float = 30.0) -> None:
        """Wait until `predicate` holds, checking it at each tick. Raises TimeoutError."""
        async with asyncio.timeout(limit):
            while not predicate():
                self._changed.clear()
                await self._changed.wait()

    # The client's work, once per period.

    async def _tick_on(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self._tick()
            due = max(due + self.period, loop.time())
            await asyncio.sleep(due - loop.time())

    def _tick(self) -> None:
        if self._process is None or self.is_running:  # the app may be in this process
            if self.heartbeats:
                self._heartbeat_channel.send(messages.encode_heartbeat(self.heartbeat))
            if self._notices and self._trickle_down.send(f"{self._notices[0]}\n"):
                del self._notices[0]
            self._send_controls()
        self.read()
        self._changed.set()

    def _send_controls(self) -> None:
        if self._waiting and self.control.send(self._waiting[0].value):
            self.sent.append(Stamped(time.monotonic(), self._waiting.popleft()))

    def read(self) -> None:
        """Read the app's messages, as at each tick."""
        now = time.monotonic()
        text = self._status_channel.receive()
        if text is not None:
            self.statuses.append(Stamped(now, messages.decode_status(text)))
        text = self._trickle_up.receive() or ""
        if messages.NEW_TRICKLE_UP in text:
            trickle = self.slot.take_trickle_up()
            if trickle is not None:
                self.trickle_ups.append(Stamped(now, trickle))
        if messages.NEW_UPLOAD in text:
            requests = self.slot.take_upload_requests()
            self.upload_requests += [Stamped(now, name) for name in requests]
        text = self._graphics.receive()
        if text is not None:
            self.graphics_replies.append(Stamped(now, messages.decode_graphics_reply(text)))
