"""Registry, presence, commands and requests on one bus."""

from collections.abc import Callable

from boincvm.bus.transport import Bus
from boincvm.controller.commands.command import Command
from boincvm.controller.commands.journal import Journal
from boincvm.controller.commands.table import CommandTable
from boincvm.controller.guests.pings import Pings
from boincvm.controller.guests.presence import PresenceWords
from boincvm.controller.guests.registry import Change, Registry
from boincvm.controller.guests.requests import Asker
from boincvm.controller.protocol.commands import Request
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.messages import GUEST, Word, belongs
from boincvm.controller.protocol.report import Report, read_report
from boincvm.controller.protocol.selector import parse_selector


class Desk:
    """Everything that guests say comes here, and everything that they are told leaves here.

    `tell` hears what happens to guests. A guest that is dropped for its silence keeps its
    commands: it may come back and answer.
    """

    def __init__(
        self,
        bus: Bus,
        tell: Callable[[Guest, Change], None] = lambda _guest, _change: None,
        report: Callable[[str, Report], None] = lambda _guest_id, _report: None,
        journal: Journal | None = None,
        *,
        owner: str = "",
        part: str = "",
    ) -> None:
        """`report` hears what guests that are known tell of their state. `owner`: of commands,
        where other controllers are on the same bus (commands/table.py); `part`: see presence.py."""
        self._tell = tell
        self._report = report
        self.registry = Registry(self._see)

        def post(guest_id: str, body: bytes) -> None:
            if not part or belongs(guest_id, part):  # else the broker ends the connection
                bus.post(GUEST + guest_id, {}, body)

        self.commands = CommandTable(post, journal=journal, owner=owner)
        self.pings = Pings(post)
        self.asker = Asker(post)
        self.presence = PresenceWords(bus, self.registry, self._take, part)
        self.reason: Callable[[str], str] = lambda _guest_id: ""
        """Of a guest that is gone, by its id: more than it said itself, if that is known."""

    async def open(self) -> None:
        """From now on guests are heard. Raises BusError."""
        await self.presence.open()
        self.registry.watch()

    async def close(self) -> None:
        """Guests are not heard any more; their programs go on. Again is harmless."""
        self.registry.close()
        self.commands.close()
        self.asker.close()
        await self.presence.close()

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
        """`request` to all guests that `selector` matches now, see addressing.py and
        `CommandTable.submit`. Raises UsageError."""
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
        """To every guest of a command whose input was kept open: see `CommandTable.give_input`.
        Raises UsageError."""
        await self.commands.give_input(command_id, data, ends=ends)

    def _see(self, guest: Guest, change: Change) -> None:
        if change in (Change.LEFT, Change.ASLEEP):
            self._give_up(guest.id, comes_back=change is Change.ASLEEP)
        self._tell(guest, change)

    def guest_is_gone(self, guest_id: str, *, comes_back: bool = False) -> None:
        """It cannot say so itself any more. `comes_back`: the same life goes on later."""
        self._give_up(guest_id, comes_back=comes_back)
        self.registry.bye(guest_id, comes_back=comes_back)

    def _give_up(self, guest_id: str, *, comes_back: bool) -> None:
        reason = self.reason(guest_id)
        if not comes_back:
            self.commands.guest_is_lost(guest_id, reason or "the guest has left")
        self.asker.guest_is_lost(guest_id, f"has left ({reason})" if reason else "has left")

    def _take(self, guest_id: str, word: Word) -> None:
        if word.name == "HELLO":
            guest = self.registry.get(guest_id)
            if guest is not None:
                self.commands.guest_says_hello(guest)
                self.asker.guest_says_hello(guest)
        elif word.name == "STILL_ALIVE":
            self.commands.guest_beats(guest_id)
            self.asker.guest_beats(guest_id)
        elif word.name.startswith("CMD_"):
            self.commands.take(guest_id, word)
        elif word.name in ("ANSWER", "ASK_TAKEN"):
            self.asker.take(guest_id, word)
        elif word.name == "PONG":
            self.pings.take(guest_id, word)
        elif word.name == "STATE" and self.registry.presence(guest_id) is not None:
            self._report(guest_id, read_report(word.table))
