"""The programs that run in a kept machine: they end with it, and can be saved with it."""

from collections.abc import Callable, Mapping

from boincvm.controller.command import Request
from boincvm.controller.guest_command import Listener, RunningProgram, Start
from boincvm.controller.guest_programs import programs_of
from boincvm.errors import HypervisorError
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import GuestProgram, ProgramEnd
from boincvm.wrapper.session import Session


class KeptPrograms:
    """`session`: gives the machine's, None while there is none to run programs in."""

    def __init__(self, session: Callable[[], Session | None]) -> None:
        self._session = session
        self._running: set[GuestProgram] = set()

    @property
    def start(self) -> Start:
        """For GuestCommands."""

        def begin(request: Request, listener: Listener) -> RunningProgram:
            session = self._session()
            if session is None:
                raise HypervisorError("the machine does not run yet, or not any more")
            program = programs_of(session.link)(request, listener)
            self._running.add(program)
            return _Guarded(program, session, self._running.discard)

        return begin

    def states(self) -> list[object]:
        """To be asked while the guest is quiet: for `attach`."""
        return [program.state() for program in self._running]

    def attach(self, link: GuestLink, states: tuple[Mapping[str, object], ...]) -> None:
        """Those that ran when the machine was saved go on; what they say goes nowhere, for nobody
        waits for it any more."""
        for state in states:
            _drained(link, state)


def _drained(link: GuestLink, state: Mapping[str, object]) -> None:
    program: GuestProgram | None = None

    def take(_stream: str, data: bytes) -> None:
        if program is not None:
            program.grant(len(data))

    def hear(_words: object, count: int) -> None:
        if program is not None:
            program.grant(count)

    program = GuestProgram.attached(link, state, output=take, on_voice=hear)


class _Guarded:
    """A program whose wait ends when the machine does."""

    def __init__(
        self, program: GuestProgram, session: Session, forget: Callable[[GuestProgram], None]
    ) -> None:
        self._program = program
        self._session = session
        self._forget = forget
        self.grant = program.grant
        self.signal = program.signal
        self.feed = program.feed
        self.end_input = program.end_input

    async def wait(self) -> ProgramEnd:
        try:
            return await self._session.guard(self._program.wait())
        finally:
            self._forget(self._program)
