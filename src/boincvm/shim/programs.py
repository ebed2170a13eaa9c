"""The programs that run in a shim's machine: they end with it, and are saved with it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping

from boincvm.controller.protocol.program import Request
from boincvm.errors import BoincvmError, HypervisorError
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import GuestProgram, ProgramEnd
from boincvm.machine.session import Session
from boincvm.node.command import Listener, RunningProgram
from boincvm.node.machine_programs import attached_to, programs_of


class MachinePrograms:
    """The programs that run in the machine now.

    `session` returns the machine's session, or None while no programs can run in it. `has_ended`
    waits until a machine that is ending has ended, and that is reported.
    """

    def __init__(
        self, session: Callable[[], Session | None], has_ended: Callable[[], Awaitable[None]]
    ) -> None:
        self._session = session
        self._has_ended = has_ended
        self._running: set[GuestProgram] = set()

    def start(self, request: Request, listener: Listener) -> RunningProgram:
        """Start a program, for NodeCommands. Raises BoincvmError."""
        session = self._session()
        if session is None:
            raise HypervisorError("the machine is not running yet, or no longer")
        return self._guarded(programs_of(session.link)(request, listener), session)

    def bring_back(
        self, session: Session, state: Mapping[str, object], listener: Listener
    ) -> RunningProgram:
        """Attach a program that ran when the machine was saved.

        Raises HostError if `state` is damaged.
        """
        return self._guarded(attached_to(session.link, state, listener), session)

    def _guarded(self, program: GuestProgram, session: Session) -> RunningProgram:
        self._running.add(program)
        return _Guarded(program, session, self._running.discard, self._has_ended)

    def states(self) -> list[dict[str, object]]:
        """Return the programs' states; call it only while the guest is quiesced."""
        return [program.state() for program in self._running]


def drain(link: GuestLink, states: Iterable[Mapping[str, object]]) -> None:
    """Let programs that ran when the machine was saved continue, and discard their output.

    Nobody waits for it any more. Raises HostError if one of `states` is damaged.
    """
    for state in states:
        nobody = _Nobody()
        nobody.program = attached_to(link, state, nobody)


class _Nobody:
    """A Listener that discards everything."""

    program: GuestProgram | None = None

    def output(self, _stream: str, data: bytes) -> None:
        self._grant(len(data))

    def input_taken(self, _count: int) -> None: ...

    def status_channel(self, _fraction: float | None, count: int) -> None:
        self._grant(count)

    def _grant(self, count: int) -> None:
        if self.program is not None:
            self.program.grant(count)


class _Guarded:
    """A program whose `wait` ends when the machine does."""

    def __init__(
        self,
        program: GuestProgram,
        session: Session,
        forget: Callable[[GuestProgram], None],
        has_ended: Callable[[], Awaitable[None]],
    ) -> None:
        self._program = program
        self._session = session
        self._forget = forget
        self._has_ended = has_ended
        self.grant = program.grant
        self.signal = program.signal
        self.feed = program.feed
        self.end_input = program.end_input
        self.state = program.state

    async def wait(self) -> ProgramEnd:
        try:
            return await self._session.guard(self._program.wait())
        except BoincvmError:
            # A user who learns of it may start the machine at once, and must not find it running.
            if self._session.is_ending:
                await self._has_ended()
            raise
        finally:
            self._forget(self._program)
