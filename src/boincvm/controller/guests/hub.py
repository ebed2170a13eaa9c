"""The controller's end of the bus: receive what guests send, and dispatch it.

A guest sends to `/topic/host.ID` and receives what is sent to `/topic/guest.ID`.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import assert_never

from boincvm.bus.transport import Bus, Message
from boincvm.controller.commands.command import Command
from boincvm.controller.commands.journal import Journal
from boincvm.controller.commands.table import CommandTable
from boincvm.controller.guests.other_hosts import OtherHosts
from boincvm.controller.guests.pings import Pings
from boincvm.controller.guests.registry import Change, Registry
from boincvm.controller.guests.requests import Requester
from boincvm.controller.protocol.commands import (
    CommandEnded,
    CommandOutput,
    CommandProgress,
    CommandStarted,
    InputTaken,
)
from boincvm.controller.protocol.envelope import GUEST, HOST, is_part_of
from boincvm.controller.protocol.guest import (
    Bye,
    Guest,
    Hello,
    HelloWanted,
    Pong,
    StillAlive,
    Unsupported,
)
from boincvm.controller.protocol.host_machines import HostMachines
from boincvm.controller.protocol.messages import FromGuest, UnknownMessageError, read_from_guest
from boincvm.controller.protocol.program import Request
from boincvm.controller.protocol.report import Report
from boincvm.controller.protocol.requests import Answer, AskTaken
from boincvm.controller.protocol.selector import parse_selector
from boincvm.errors import GuestProtocolError


async def _at_once() -> None: ...


class Hub:
    """Guests, commands, requests and pings on one bus.

    A guest that is dropped because it is silent keeps its commands: it may come back and answer.
    """

    def __init__(
        self,
        bus: Bus,
        on_change: Callable[[Guest, Change], None] = lambda _guest, _change: None,
        on_report: Callable[[str, Report], None] = lambda _guest_id, _report: None,
        journal: Journal | None = None,
        *,
        owner: str = "",
        part: str = "",
    ) -> None:
        """Connect guests, commands, requests and pings to `bus`.

        `on_change` is called with what happens to guests, `on_report` with the reports of known
        guests. `owner`: whose commands these are, if other controllers use the same bus (see
        CommandTable). `part`: only guests whose ids begin with it and a dot are listened to and
        sent messages; empty for all.
        """
        self._bus = bus
        self._part = part
        self._on_change = on_change
        self._on_report = on_report
        self._unsubscribe: Callable[[], Awaitable[None]] | None = None
        self.registry = Registry(self._guest_changed)
        self.commands = CommandTable(self._send, journal=journal, owner=owner)
        self.pings = Pings(self._send)
        self.requester = Requester(self._send)
        self.other_hosts = OtherHosts(self.requester)
        self.counts: Counter[str] = Counter()
        """Messages received, by name, and messages rejected, by reason."""
        self.reason: Callable[[str], str] = lambda _guest_id: ""
        """Returns, by a guest's id, why it is gone; "" if no more is known than it said itself."""
        self.until_connected: Callable[[], Awaitable[None]] = _at_once
        """Waits for the bus for a while. Raises BusError if it does not come back."""

    async def open(self) -> None:
        """Start listening to guests. Raises BusError."""
        pattern = f"{HOST}{self._part}.**" if self._part else f"{HOST}**"
        self._unsubscribe = await self._bus.subscribe(pattern, self._receive)
        self.registry.watch()

    async def close(self) -> None:
        """Stop listening to guests, whose programs go on; calling this again is harmless."""
        self.registry.close()
        self.commands.close()
        await self.other_hosts.close()
        self.requester.close()
        unsubscribe, self._unsubscribe = self._unsubscribe, None
        if unsubscribe is not None:
            await unsubscribe()

    def run(
        self,
        selector: str,
        request: Request,
        *,
        command_id: str | None = None,
        first: int | None = None,
        within: float | None = None,
        keep_input: bool = False,
    ) -> Command:
        """Send `request` to all guests that `selector` matches now. Raises UsageError.

        See protocol/selector.py and `CommandTable.submit`.
        """
        guests = self.registry.find(parse_selector(selector))
        return self.commands.submit(
            guests,
            request,
            command_id=command_id,
            first=first,
            within=within,
            keep_input=keep_input,
        )

    async def give_input(self, command_id: str, data: bytes, *, ends: bool = False) -> None:
        """Give more input to a command, see `CommandTable.give_input`. Raises UsageError."""
        await self.commands.give_input(command_id, data, ends=ends)

    def guest_is_gone(self, guest_id: str, *, comes_back: bool = False) -> None:
        """Handle that a guest has gone without being able to say so itself.

        `comes_back`: the same life goes on later.
        """
        self._give_up(guest_id, comes_back=comes_back)
        self.registry.bye(guest_id, comes_back=comes_back)

    def _guest_changed(self, guest: Guest, change: Change) -> None:
        if change in (Change.LEFT, Change.ASLEEP):
            self._give_up(guest.id, comes_back=change is Change.ASLEEP)
        self._on_change(guest, change)

    def _give_up(self, guest_id: str, *, comes_back: bool) -> None:
        reason = self.reason(guest_id)
        if not comes_back:
            self.commands.handle_loss(guest_id, reason or "the guest has left")
        self.requester.handle_loss(guest_id, f"has left ({reason})" if reason else "has left")

    def _send(self, guest_id: str, body: bytes) -> None:
        # The broker disconnects a peer that sends to another host's part.
        if not self._part or is_part_of(guest_id, self._part):
            self._bus.post(GUEST + guest_id, {}, body)

    # Messages from guests.

    def _receive(self, message: Message) -> None:
        guest_id = message.destination.removeprefix(HOST)
        # An invited host sends the messages of all of its machines.
        if message.sender and not is_part_of(guest_id, message.sender):
            self.counts["gave a false id"] += 1
            return
        account = message.sender if message.sender != guest_id else ""
        try:
            received = read_from_guest(message.body)
            self._handle(guest_id, account, received)
            self.counts[received.NAME] += 1
        except UnknownMessageError:
            self.counts["unknown"] += 1
        except GuestProtocolError:
            self.counts["invalid"] += 1

    def _handle(self, guest_id: str, account: str, message: FromGuest) -> None:
        """Dispatch a message. Raises GuestProtocolError."""
        match message:
            case Hello():
                guest = message.guest(guest_id)
                self.registry.hello(guest, account)
                self.commands.handle_hello(guest)
                self.requester.handle_hello(guest)
            case StillAlive():
                if not self.registry.still_alive(guest_id):
                    self._send(guest_id, HelloWanted().encode())
                self.commands.handle_beat(guest_id)
                self.requester.handle_beat(guest_id)
            case Bye():
                self.registry.bye(guest_id, comes_back=message.comes_back)
            case Report():
                if self.registry.get(guest_id) is not None:
                    self._on_report(guest_id, message)
            case Pong():
                self.pings.handle(guest_id, message)
            case AskTaken() | Answer():
                self.requester.handle(guest_id, message)
            case (
                CommandStarted()
                | CommandOutput()
                | CommandProgress()
                | CommandEnded()
                | InputTaken()
            ):
                self.commands.handle(guest_id, message)
            case HostMachines():
                self.other_hosts.handle(guest_id, account, message)
            case Unsupported():
                pass  # only counted: the guest is older, and its callers have a time limit
            case _:
                assert_never(message)
