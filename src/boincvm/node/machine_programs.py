"""Run commands from the bus as programs in a machine of this host, over its guest link."""

from collections.abc import Callable, Mapping, Sequence

from boincvm.controller.protocol.program import Request
from boincvm.guestlink.guest_paths import WORK
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import GuestProgram, OnStatus
from boincvm.guestlink.status_channel import FractionDone, StatusMessage
from boincvm.node.command import Listener


def programs_of(link: GuestLink) -> Callable[[Request, Listener], GuestProgram]:
    """Return a function that starts programs in the machine at the other end of `link`."""

    def start(request: Request, listener: Listener) -> GuestProgram:
        program = GuestProgram(
            link,
            request.argv,
            directory=str(WORK / request.directory),
            environment={**link.environment, **request.environment},
            output=listener.output,
            on_stdin_room=listener.input_taken,
            on_status=_status_handler(listener),
        )
        if request.stdin:
            program.feed(request.stdin)
        if not request.keep_input:
            program.end_input()
        return program

    return start


def attached_to(link: GuestLink, state: Mapping[str, object], listener: Listener) -> GuestProgram:
    """Attach to a running program from its `state`; only before `link.attach`.

    Raises HostError if `state` is damaged.
    """
    return GuestProgram.attached(
        link,
        state,
        output=listener.output,
        on_stdin_room=listener.input_taken,
        on_status=_status_handler(listener),
    )


def _status_handler(listener: Listener) -> OnStatus:
    def handle(messages: Sequence[StatusMessage], count: int) -> None:
        done = [message.fraction for message in messages if isinstance(message, FractionDone)]
        listener.status_channel(done[-1] if done else None, count)

    return handle
