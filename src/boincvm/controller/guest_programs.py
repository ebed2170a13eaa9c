"""Commands from the bus run as programs in a machine of this host, over its guest link."""

from collections.abc import Callable, Sequence

from boincvm.controller.command import Request
from boincvm.controller.guest_command import Listener
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import GuestProgram
from boincvm.guestlink.voice import FractionDone, Word
from boincvm.wrapper.guest_place import ENVIRONMENT, WORK


def programs_of(link: GuestLink) -> Callable[[Request, Listener], GuestProgram]:
    """For `GuestCommands`: they run in the machine at the other end of `link`."""

    def start(request: Request, listener: Listener) -> GuestProgram:
        def hear(words: Sequence[Word], count: int) -> None:
            done = [word.fraction for word in words if isinstance(word, FractionDone)]
            listener.voice(done[-1] if done else None, count)

        program = GuestProgram(
            link,
            request.argv,
            directory=str(WORK / request.directory),
            environment={**ENVIRONMENT, **request.environment},
            output=listener.output,
            on_stdin_room=listener.input_taken,
            on_voice=hear,
        )
        if request.stdin:
            program.feed(request.stdin)
        if not request.keep_input:
            program.end_input()
        return program

    return start
