"""The BOINC client, as a task's process sees it."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path

from boincvm.boinc import channels, exits, messages, trickles, uploads
from boincvm.boinc.channel_poller import ChannelPoller
from boincvm.boinc.channels import Channel, SegmentError
from boincvm.boinc.client_liveness import ClientLiveness
from boincvm.boinc.init_data import InitData, read_init_data
from boincvm.boinc.lock import USUAL_WAIT, SlotLock
from boincvm.boinc.messages import Control, Heartbeat, Status
from boincvm.boinc.outbox import Outbox
from boincvm.boinc.segment import Segment, open_segment
from boincvm.boinc.soft_link import resolve
from boincvm.boinc.task_state import write_task_state


class Event(Enum):
    """What the client requests, or what has happened to it."""

    SUSPEND = auto()
    RESUME = auto()
    QUIT = auto()
    """Save and exit with status 0, within 60 s; the task is started again later."""
    ABORT = auto()
    """Exit immediately; nothing need be saved."""
    REREAD_PREFERENCES = auto()
    """`Client.init_data` has been read again."""
    NETWORK_AVAILABLE = auto()
    """The network that `Status.want_network` asked for is available."""
    NETWORK_SUSPENDED = auto()
    NETWORK_RESUMED = auto()
    TRICKLE_DOWN = auto()
    UPLOAD_STATUS = auto()
    CLIENT_GONE = auto()
    """As QUIT, but there is no client left to report to."""


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

    In standalone mode, without a client, all methods work but send nothing; files in the slot are
    written all the same, as BOINC's library does, and there are no events. Belongs to the event
    loop in which it was opened.
    """

    def __init__(
        self, slot: Path, lock: SlotLock, init_data: InitData | None, segment: Segment | None
    ) -> None:
        """Set the fields; use `open` instead."""
        self.slot = slot
        self.init_data = InitData() if init_data is None else init_data
        self.on_heartbeat: Callable[[Heartbeat], None] | None = None
        """Called at each heartbeat, once a second. That is the time to `report`, since the
        client reads reports once a second."""
        self.standalone_reason = ""
        """Why there is no client to talk to; "" if there is one."""
        self._lock = lock
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._network_suspended = False
        self._closed = False
        self._is_gone = False
        self._status_read: asyncio.Event | None = None
        self._outbox = Outbox(None if segment is None else segment.memory)
        self._segment = segment
        self._poller: ChannelPoller | None = None
        self._liveness: ClientLiveness | None = None
        if segment is None:
            return
        self._control = Channel(segment.memory, channels.CONTROL)
        self._heartbeat = Channel(segment.memory, channels.HEARTBEAT)
        self._trickle_down = Channel(segment.memory, channels.TRICKLE_DOWN)
        self._liveness = ClientLiveness(self.init_data.client_pid, self._lose_client)
        self._poller = ChannelPoller(segment.memory, self._poll_channels)

    @classmethod
    async def open(cls, slot: Path | None = None, *, lock_wait: float = USUAL_WAIT) -> "Client":
        """Connect to the client of the task in `slot`, by default the working directory.

        Waits `lock_wait` seconds for a previous app to leave the slot. If there is no
        init_data.xml, or the shared memory that it names cannot be opened, the result is
        standalone.

        Raises SlotBusyError (after which apps of BOINC make a temporary exit of RETRY_DELAY
        seconds), InitDataError, HostError.
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
        """Tell whether there is no client to talk to."""
        return self.standalone_reason != ""

    # From the client.

    async def next_event(self) -> Event:
        """Return the next event; none is lost, even if waiting is cancelled.

        `init_data` is read again before REREAD_PREFERENCES is returned: this raises InitDataError.
        """
        event = await self._events.get()
        if event is Event.REREAD_PREFERENCES:
            self.init_data = read_init_data(self.slot) or self.init_data
        return event

    def _lose_client(self) -> None:
        self._is_gone = True
        self._events.put_nowait(Event.CLIENT_GONE)

    def _poll_channels(self) -> None:
        """Handle incoming messages, and send what can be sent."""
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
        if self._liveness is not None:
            self._liveness.heartbeat()
        if heartbeat.network_suspended != self._network_suspended:
            self._network_suspended = heartbeat.network_suspended
            suspended = heartbeat.network_suspended
            self._events.put_nowait(Event.NETWORK_SUSPENDED if suspended else Event.NETWORK_RESUMED)
        if self.on_heartbeat is not None:
            self.on_heartbeat(heartbeat)

    # To the client.

    def _send(self) -> None:
        waiting = self._outbox.send()
        if self._status_read is not None:
            if self._outbox.is_status_taken:
                self._status_read.set()
            else:
                waiting = (*waiting, channels.APP_STATUS)
        if self._poller is not None:
            self._poller.outgoing = waiting

    def report(self, status: Status) -> None:
        """Report how the task is doing, as soon as the client has read the previous report.

        If several reports wait, only the last one is sent.
        """
        self._outbox.status = messages.encode_status(status)
        self._send()

    @property
    def has_taken_report(self) -> bool:
        """Return True if the client has read the last report; always True if standalone."""
        return self._outbox.is_status_taken

    async def report_taken(self, limit: float) -> bool:
        """Wait up to `limit` seconds until the client has read the last report.

        Returns True if it has. A client that is about to exit reads none any more.
        """
        if self._is_gone:
            return False
        self._status_read = asyncio.Event()
        self._send()
        try:
            async with asyncio.timeout(limit):
                await self._status_read.wait()
        except TimeoutError:
            return False
        finally:
            self._status_read = None
            self._send()
        return True

    def write_task_state(self, cpu_time: float, elapsed: float) -> bool:
        """Tell the client's next run of a checkpoint that this run did not read (`report_taken`).

        Both times are seconds over all runs of the task. Returns False if that is not possible.
        Raises OSError.
        """
        return write_task_state(self.slot, self.init_data, cpu_time, elapsed)

    def set_web_graphics_url(self, url: str) -> None:
        """Tell the client the URL of the task's graphics in a browser. Raises ValueError."""
        self._outbox.graphics["url"] = messages.encode_web_graphics_url(url)
        self._send()

    def set_remote_desktop_address(self, host_port: str) -> None:
        """Tell the client the HOST:PORT of the machine's display for a desktop viewer.

        Raises ValueError.
        """
        self._outbox.graphics["desktop"] = messages.encode_remote_desktop_address(host_port)
        self._send()

    def send_trickle_up(self, variety: str, text: str | bytes) -> None:
        """Send a message to the project's server. Raises ValueError, OSError."""
        trickles.write_trickle_up(self.slot, variety, text)
        self._outbox.flag(messages.NEW_TRICKLE_UP)
        self._send()

    def trickle_downs(self) -> list[Path]:
        """Return messages from the project's server; the reader removes them."""
        return trickles.trickle_downs(self.slot)

    def request_upload(self, name: str) -> None:
        """Request the upload of an output file before the task is over.

        Raises ValueError, OSError.
        """
        uploads.write_upload_request(self.slot, name)
        self._outbox.flag(messages.NEW_UPLOAD)
        self._send()

    def upload_status(self, name: str) -> int | None:
        """Return 0 if uploaded, another number if that failed, None if not known yet.

        Raises ValueError, OSError.
        """
        return uploads.upload_status(self.slot, name)

    def resolve(self, name: str) -> Path:
        """Return the file that `name` in the slot refers to. Raises SoftLinkError."""
        return resolve(self.slot, name, self.init_data)

    # The end.

    def finish(self, exit_status: int, message: str = "", *, notice: bool = False) -> None:
        """Declare the task finished; the process must now exit with `exit_status`.

        The last report reaches the client even if it has not read the one before. With `notice` the
        volunteer is shown the message. Raises OSError.
        """
        exits.remove_end_files(self.slot)
        exits.write_finish_file(self.slot, exit_status, message, notice=notice)
        self._outbox.send_last()

    def temporary_exit(self, delay: float, reason: str, *, notice: bool = False) -> None:
        """Ask for a restart after `delay` seconds; the process must now exit with status 0.

        Raises ValueError if there is no reason, OSError.
        """
        exits.remove_end_files(self.slot)
        exits.write_temporary_exit_file(self.slot, delay, reason, notice=notice)
        self._outbox.send_last()

    def leave(self) -> None:
        """Leave the task to be continued later; the process must now exit.

        The last report reaches the client even if it has not read the one before. Files by which
        another program in the slot declared the task finished are removed.
        """
        exits.remove_end_files(self.slot)
        self._outbox.send_last()

    def close(self) -> None:
        """Release the shared memory and the slot; calling it again is harmless."""
        if self._closed:
            return
        self._closed = True
        if self._poller is not None:
            self._poller.close()
        if self._liveness is not None:
            self._liveness.close()
        self._outbox.close()
        if self._segment is not None:
            self._segment.close()
        self._lock.release()
