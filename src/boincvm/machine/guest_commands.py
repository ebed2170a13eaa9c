"""Runs small commands of our own in the guest, between a job's programs."""

import asyncio
from collections.abc import Sequence
from pathlib import PurePosixPath

from boincvm.durations import format_duration
from boincvm.errors import GuestHungError
from boincvm.guestlink import signals
from boincvm.guestlink.display import printable, shown
from boincvm.guestlink.guest_paths import WORK
from boincvm.guestlink.program import GuestProgram
from boincvm.machine.session import Session

LONG = 3600.0
"""Seconds for a command that reads or writes as much as a disk may have."""
_SHORT = 600.0
_MOST_OUTPUT = 4096


class GuestCommandLimitError(GuestHungError):
    """A command of ours did not end in time; it was killed."""


async def run_in_guest(
    session: Session, command: Sequence[str], *, within: float = _SHORT
) -> str | None:
    """Run `command`; return None on success, else its output as one line.

    Raises what `output_in_guest` does.
    """
    code, output = await output_in_guest(session, command, _MOST_OUTPUT, within=within)
    return None if code == 0 else printable(output)


async def output_in_guest(
    session: Session,
    command: Sequence[str],
    most: int,
    *,
    within: float = _SHORT,
    is_end_kept: bool = False,
) -> tuple[int | None, bytes]:
    """Run `command` for at most `within` seconds; return its exit code and `most` bytes of output.

    They are the first ones, or the last ones with `is_end_kept`. The code is None if a signal
    killed it. Nobody waits for ever for a guest whose disk or shell
    does not answer. Raises ProgramStartError, GuestCommandLimitError, GuestError.
    """
    output = bytearray()

    def on_output(_: str, data: bytes) -> None:
        if is_end_kept:
            output.extend(data)
            del output[:-most]
        else:
            output.extend(data[: most - len(output)])
        program.grant(len(data))

    program = GuestProgram(
        session.link,
        command,
        directory=str(WORK),
        environment=session.link.environment,
        output=on_output,
    )
    program.end_input()
    try:
        async with asyncio.timeout(within):
            end = await program.wait()
    except TimeoutError:
        raise GuestCommandLimitError(
            f"{shown(PurePosixPath(command[0]))} in the guest did not end within"
            f" {format_duration(within)}",
            hint="its disk or its programs do not answer; start the machine again",
        ) from None
    finally:
        if not program.has_ended:
            program.signal(signals.KILL)
    return end.code, bytes(output)
