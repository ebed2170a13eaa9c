"""The BOINC client, as a task's process sees it."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path

from boincvm.boinc import channels, exits, messages, trickles, uploads
from boincvm.boinc.channel_poller import ChannelPoller
from boincvm.boinc.channels import Channel
from boincvm.boinc.client_liveness import ClientLiveness
from boincvm.boinc.init_data import InitData, read_init_data
from boincvm.boinc.lock import USUAL_WAIT, SlotLock
from boincvm.boinc.messages import Control, Heartbeat, Status
from boincvm.boinc.outbox import Outbox
from boincvm.boinc.segment import Segment, SegmentError, open_segment
from boincvm.boinc.soft_link import resolve
from boincvm.boinc.task_state import write_task_state


class Event(Enum):
    """What the client wants, or what has happened to it."""

    SUSPEND = auto()
    RESUME = auto()
    QUIT = auto()
    """Save and end with status 0, within 60 s; the task is started again some day."""
    ABORT = auto()
    """End at once; nothing need be saved."""
    REREAD_PREFERENCES = auto()
    """`Client.init_data` is new."""
    NETWORK_AVAILABLE = auto()
    """What `Status.want_network` asked for."""
    NETWORK_SUSPENDED = auto()
    NETWORK_RESUMED = auto()
    TRICKLE_DOWN = auto()
    UPLOAD_STATUS = auto()
    CLIENT_GONE = auto()
    """As QUIT; nobody is there to be told anything."""


_EVENTS = {
    Control.SUSPEND: Event.SUSPEND,
    Control.RESUME: Event.RESUME,
    Control.QUIT: Event.QUIT,
    Control.ABORT: Event.ABORT,
    Control.REREAD_PREFERENCES: Event.REREAD_PREFERENCES,
    Control.NETWORK_AVAILABLE: Event.NETWORK_AVAILABLE,
}


class Client:
    """The client that started this process in `slot`.

    Standalone, which is without a client, all methods work and say nothing to anybody; files in
    the slot are written all the same, as BOINC's library does it, and there are no events.
    Belongs to the event loop in which it was opened.
    """

    def __init__(
        self, slot: Path, lock: SlotLock, init_data: InitData | None, segment: Segment | None
    ) -> None:
        """Use `open`."""
        self.slot = slot
        self.init_data = InitData() if init_data is None else init_data
        self.on_heartbeat: Callable[[Heartbeat], None] | None = None
        """Called at each heartbeat, once a second: the time to `report`, since the client reads
        what is reported as often."""
        self.standalone_reason = ""
        """Why there is no client to talk to; "" where there is one."""
        self._lock = lock
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._network_suspended = False
        self._closed = False
        self._is_gone = False
        self._taken: asyncio.Event | None = None
        self._outbox = Outbox(None if segment is None else segment.memory)
        self._segment = segment
        self._watch: ChannelPoller | None = None
        self._presence: ClientLiveness | None = None
        if segment is None:
            return
        self._control = Channel(segment.memory, channels.CONTROL)
        self._heartbeat = Channel(segment.memory, channels.HEARTBEAT)
        self._trickle_down = Channel(segment.memory, channels.TRICKLE_DOWN)
        self._presence = ClientLiveness(self.init_data.client_pid, self._lose_client)
        self._watch = ChannelPoller(segment.memory, self._look)

    @classmethod
    async def open(cls, slot: Path | None = None, *, lock_wait: float = USUAL_WAIT) -> "Client":
        """The client of the task in `slot`, the working directory unless told otherwise.

        Waits `lock_wait` seconds for a former app to leave the slot. Raises SlotBusyError (a
        temporary exit of RETRY_DELAY seconds is what BOINC makes of it), InitDataError,
        HostError. Where there is no init_data.xml, or the shared memory that it names cannot be
        opened, the result is standalone.
        """
        slot = Path.cwd() if slot is None else slot.absolute()
        lock = await SlotLock.acquire(slot, lock_wait)
        try:
            init_data = read_init_data(slot)
            segment, reason = None, "there is no init_data.xml"
            if init_data is not None:
                try:
                    segment, reason = open_segment(slot, init_data), ""
                except SegmentError as error:
                    reason = error.message
            client = cls(slot, lock, init_data, segment)
            client.standalone_reason = reason
        except BaseException:
            lock.release()
            raise
        return client

    @property
    def is_standalone(self) -> bool:
        """Whether there is no client to talk to."""
        return self.standalone_reason != ""

    # What the client says.

    async def next_event(self) -> Event:
        """The next event, in order; none is lost, also where waiting is cancelled.

        Before REREAD_PREFERENCES is returned `init_data` is read anew: InitDataError.
        """
        event = await self._events.get()
        if event is Event.REREAD_PREFERENCES:
            self.init_data = read_init_data(self.slot) or self.init_data
        return event

    def _lose_client(self) -> None:
        self._is_gone = True
        self._events.put_nowait(Event.CLIENT_GONE)

    def _look(self) -> None:
        """Takes what has come, and sends what can go."""
        text = self._control.receive()
        if text is not None:
            for control in messages.decode_control(text):
                self._events.put_nowait(_EVENTS[control])
        text = self._trickle_down.receive()
        if text is not None:
            if messages.NEW_TRICKLE_DOWN in text:
                self._events.put_nowait(Event.TRICKLE_DOWN)
            if messages.NEW_UPLOAD_STATUS in text:
                self._events.put_nowait(Event.UPLOAD_STATUS)
        text = self._heartbeat.receive()
        self._send()
        if text is not None:
            self._beat(messages.decode_heartbeat(text))

    def _beat(self, heartbeat: Heartbeat) -> None:
        if self._presence is not None:
            self._presence.heartbeat()
        if heartbeat.network_suspended != self._network_suspended:
            self._network_suspended = heartbeat.network_suspended
            suspended = heartbeat.network_suspended
            self._events.put_nowait(Event.NETWORK_SUSPENDED if suspended else Event.NETWORK_RESUMED)
        if self.on_heartbeat is not None:
            self.on_heartbeat(heartbeat)

    # What we say.

    def _send(self) -> None:
        waiting = self._outbox.send()
        if self._taken is not None:
            if self._outbox.is_status_taken:
                self._taken.set()
            else:
                waiting = (*waiting, channels.APP_STATUS)
        if self._watch is not None:
            self._watch.outgoing = waiting

    def report(self, status: Status) -> None:
        """Tells the client how the task is doing, as soon as it has taken the former report.

        Of several reports that wait, the last one is sent.
        """
        self._outbox.status = messages.encode_status(status)
        self._send()

    @property
    def has_taken_report(self) -> bool:
        """Whether the client has taken the last report; standalone, always."""
        return self._outbox.is_status_taken

    async def report_taken(self, limit: float) -> bool:
        """Wait until the client has taken the last report, `limit` seconds at most.

        Whether it has. One that is about to end itself takes none any more.
        """
        if self._is_gone:
            return False
        self._taken = asyncio.Event()
        self._send()
        try:
            async with asyncio.timeout(limit):
                await self._taken.wait()
        except TimeoutError:
            return False
        finally:
            self._taken = None
            self._send()
        return True

    def write_task_state(self, cpu_time: float, elapsed: float) -> bool:
        """Tell the client's next run of a checkpoint that this one did not take (`report_taken`).

        In seconds of both times, over all runs of the task. Whether it could be. Raises OSError.
        """
        return write_task_state(self.slot, self.init_data, cpu_time, elapsed)

    def set_web_graphics_url(self, url: str) -> None:
        """Where a browser can see the task at work. Raises ValueError."""
        self._outbox.graphics["url"] = messages.encode_web_graphics_url(url)
        self._send()

    def set_remote_desktop_address(self, host_port: str) -> None:
        """HOST:PORT where a desktop viewer can see the task's machine. Raises ValueError."""
        self._outbox.graphics["desktop"] = messages.encode_remote_desktop_address(host_port)
        self._send()

    def send_trickle_up(self, variety: str, text: str | bytes) -> None:
        """A message for the project's server. Raises ValueError, OSError."""
        trickles.write_trickle_up(self.slot, variety, text)
        self._outbox.flag(messages.NEW_TRICKLE_UP)
        self._send()

    def trickle_downs(self) -> list[Path]:
        """Messages from the project's server; whoever has read one removes it."""
        return trickles.trickle_downs(self.slot)

    def request_upload(self, name: str) -> None:
        """Asks for the upload of an output file before the task is over.

        Raises ValueError, OSError.
        """
        uploads.write_upload_request(self.slot, name)
        self._outbox.flag(messages.NEW_UPLOAD)
        self._send()

    def upload_status(self, name: str) -> int | None:
        """0: uploaded; another number: failed; None: not known yet. Raises ValueError, OSError."""
        return uploads.upload_status(self.slot, name)

    def resolve(self, name: str) -> Path:
        """The file that `name` of the slot stands for. Raises SoftLinkError."""
        return resolve(self.slot, name, self.init_data)

    # The end.

    def finish(self, exit_status: int, message: str = "", *, notice: bool = False) -> None:
        """The task is over; the process must now end with `exit_status`.

        The last report reaches the client even where it has not taken the one before. `notice`:
        the volunteer is shown the message. Raises OSError.
        """
        exits.remove_end_files(self.slot)
        exits.write_finish_file(self.slot, exit_status, message, notice=notice)
        self._outbox.send_last()

    def temporary_exit(self, delay: float, reason: str, *, notice: bool = False) -> None:
        """The task goes on after `delay` seconds; the process must now end with status 0.

        Raises ValueError without a reason, OSError.
        """
        exits.remove_end_files(self.slot)
        exits.write_temporary_exit_file(self.slot, delay, reason, notice=notice)
        self._outbox.send_last()

    def leave(self) -> None:
        """The task goes on some day; the process must now end.

        The last report reaches the client even where it has not taken the one before. Nothing
        that another program has written in the slot says that the task is over.
        """
        exits.remove_end_files(self.slot)
        self._outbox.send_last()

    def close(self) -> None:
        """Lets go of the shared memory and of the slot; once is enough, twice does no harm."""
        if self._closed:
            return
        self._closed = True
        if self._watch is not None:
            self._watch.close()
        if self._presence is not None:
            self._presence.close()
        self._outbox.close()
        if self._segment is not None:
            self._segment.close()
        self._lock.release()
