"""A node: one guest's end of the bus, which announces itself and carries out requests."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import assert_never

from boincvm.bus.client import StompBus
from boincvm.bus.transport import Message
from boincvm.controller.protocol.commands import (
    ForgetCommand,
    GiveInput,
    OutputTaken,
    RunCommand,
    SignalCommand,
)
from boincvm.controller.protocol.envelope import GUEST, HOST
from boincvm.controller.protocol.guest import (
    BEAT,
    Bye,
    Guest,
    Hello,
    HelloWanted,
    Ping,
    Pong,
    StillAlive,
    Unsupported,
)
from boincvm.controller.protocol.messages import ToGuest, UnknownMessageError, read_to_guest
from boincvm.controller.protocol.report import Report
from boincvm.controller.protocol.requests import Ask
from boincvm.errors import GuestProtocolError
from boincvm.node.command import StartProgram
from boincvm.node.commands import NodeCommands
from boincvm.node.responder import Responder, Verb


class Node:
    """One guest's end of the bus."""

    def __init__(
        self,
        bus: StompBus,
        guest: Guest,
        start: StartProgram,
        group: asyncio.TaskGroup,
        beat: float = BEAT,
        verbs: Mapping[str, Verb] | None = None,
        report: Callable[[], Report] | None = None,
    ) -> None:
        """Create a node that starts programs by `start` and awaits them in `group`.

        `guest.instance` differs in each life. `verbs` answer requests by name and also run in
        `group`. `beat` is in seconds. `report` returns the state that is sent with each beat.
        """
        self._bus = bus
        self._guest = guest
        self._report = report
        self._beat_interval = beat
        self.commands = NodeCommands(guest.instance, start, self._send, group)
        """The commands that it was given."""
        self._responder = Responder(guest.instance, verbs or {}, self._send, group)
        self._timer: asyncio.TimerHandle | None = None
        self._unsubscribe: Callable[[], Awaitable[None]] | None = None
        self._is_announced = False
        self.counts: Counter[str] = Counter()
        """Number of invalid messages that it received."""

    async def open(self) -> None:
        """Announce itself now, and again on each connection. Raises BusError."""
        self._unsubscribe = await self._bus.subscribe(GUEST + self._guest.id, self._receive)
        self._is_announced = True
        self._bus.on_connected = self._send_hello
        self._send_hello()
        self._beat()

    async def stop_receiving(self) -> None:
        """Ignore all further messages; calling it again is harmless.

        It must be called before the group ends, which then waits for what still runs, and that is
        still answered. Who waits for an answer to a later message learns of the end by BYE.
        """
        unsubscribe, self._unsubscribe = self._unsubscribe, None
        if unsubscribe is not None:
            await unsubscribe()

    async def close(self, *, comes_back: bool = False) -> None:
        """Say BYE if connected; calling it again is harmless. Running programs continue.

        With `comes_back` the same life continues later, with its commands.
        """
        if self._timer is not None:
            self._timer.cancel()
        self._bus.on_connected = lambda: None
        await self.stop_receiving()
        if self._is_announced:
            self._is_announced = False
            self._send(Bye(comes_back).encode())

    def send_report(self) -> None:
        """Send a report now, because the state has changed."""
        if self._report is not None:
            self._send(self._report().encode())

    def _send(self, body: bytes) -> None:
        self._bus.post(HOST + self._guest.id, {}, body)

    def _send_hello(self) -> None:
        self._send(Hello.of(self._guest).encode())
        self.send_report()

    def _beat(self) -> None:
        self._send(StillAlive().encode())
        self.send_report()
        self.commands.beat()
        self._responder.beat()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._beat_interval, self._beat)

    def _receive(self, message: Message) -> None:
        try:
            self._handle(read_to_guest(message.body))
        except UnknownMessageError as error:
            self._send(Unsupported(error.name).encode())
        except GuestProtocolError:
            self.counts["invalid"] += 1

    def _handle(self, message: ToGuest) -> None:
        """Dispatch a message. Raises GuestProtocolError."""
        match message:
            case HelloWanted():
                self._send_hello()
            case Ping():
                self._send(Pong(message.fields).encode())
            case Ask():
                self._responder.handle(message)
            case RunCommand() | OutputTaken() | GiveInput() | SignalCommand() | ForgetCommand():
                self.commands.handle(message)
            case _:
                assert_never(message)
