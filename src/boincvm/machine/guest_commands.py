"""Runs small commands of our own in the guest, between a job's programs."""

from collections.abc import Sequence

from boincvm.guestlink.display import printable
from boincvm.guestlink.guest_paths import ENVIRONMENT, WORK
from boincvm.guestlink.program import GuestProgram
from boincvm.machine.session import Session

_MOST_OUTPUT = 4096


async def run_in_guest(session: Session, command: Sequence[str]) -> str | None:
    """Run `command`; return None on success, else its output as one line.

    Raises ProgramStartError, GuestError.
    """
    output = bytearray()

    def on_output(_: str, data: bytes) -> None:
        output.extend(data[: _MOST_OUTPUT - len(output)])
        program.grant(len(data))

    program = GuestProgram(
        session.link, command, directory=str(WORK), environment=ENVIRONMENT, output=on_output
    )
    program.end_input()
    end = await program.wait()
    return None if end.code == 0 else printable(bytes(output))
