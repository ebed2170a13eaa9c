"""Registry, presence, commands and requests on one bus."""

from collections.abc import Callable

from boincvm.bus.transport import Bus
from boincvm.controller.addressing import parse_selector
from boincvm.controller.asking import Asker
from boincvm.controller.command import Command, Request
from boincvm.controller.commands import CommandTable
from boincvm.controller.journal import Journal
from boincvm.controller.pings import Pings
from boincvm.controller.presence import PresenceWords
from boincvm.controller.registry import Change, Guest, Registry
from boincvm.controller.report import Report, read_report
from boincvm.controller.words import GUEST, Word, belongs
from boincvm.errors import UsageError


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
        where other controllers are on the same bus (commands.py); `part`: see presence.py."""
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

    def find(self, selector: str) -> list[Guest]:
        """All guests that it matches now. Raises UsageError where there is none."""
        found = self.registry.find(parse_selector(selector))
        if not found:
            raise UsageError(
                f"{selector[:80]!r} matches no guest that is there", hint="boincvm ls shows them"
            )
        return found

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
        if change is Change.LEFT:
            self.commands.guest_is_lost(guest.id, "the guest has left")
            self.asker.guest_is_lost(guest.id)
        self._tell(guest, change)

    def _take(self, guest_id: str, word: Word) -> None:
        if word.name == "HELLO":
            for guest in self.registry.find(parse_selector(guest_id)):
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
