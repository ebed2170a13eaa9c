"""Commands from the bus run as programs in a machine of this host, over its guest link."""

from collections.abc import Callable

from boincvm.controller.command import Request
from boincvm.controller.guest_commands import Start
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import GuestProgram
from boincvm.wrapper.guest_place import ENVIRONMENT, WORK


def programs_of(link: GuestLink) -> Start:
    """For `GuestCommands`: they run in the machine at the other end of `link`."""

    def start(request: Request, output: Callable[[str, bytes], None]) -> GuestProgram:
        program = GuestProgram(
            link,
            request.argv,
            directory=str(WORK / request.directory),
            environment={**ENVIRONMENT, **request.environment},
            output=output,
        )
        if request.stdin:
            program.feed(request.stdin)
        program.end_input()
        return program

    return start
