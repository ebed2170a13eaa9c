"""Recognizes programs that failed because of a limit of their machine."""

from pathlib import PurePosixPath

from boincvm.errors import LimitError
from boincvm.exit_codes import ExitCode
from boincvm.guestlink.display import shown
from boincvm.guestlink.program import ProgramEnd
from boincvm.sizes import format_size

DISK_FULL = 1 << 20
"""A program that fails with fewer bytes than this free on the guest's disk has filled it."""


def check_limits(end: ProgramEnd, program: str, memory: int, options: tuple[str, str]) -> None:
    """Raise LimitError if `program` failed for lack of the machine's memory or disk.

    `memory`: bytes that the machine has. `options`: the names of the options that ask for more
    memory and for more disk.
    """
    name = shown(PurePosixPath(program))
    if end.out_of_memory_kills:
        raise LimitError(
            f"{name} needed more memory than the machine's {format_size(memory)}",
            hint=f"give it more with {options[0]}",
            exit_code=ExitCode.MEMORY_LIMIT_EXCEEDED,
        )
    if end.disk_free < DISK_FULL:
        raise LimitError(
            f"{name} filled the machine's disk",
            hint=f"give it more with {options[1]}",
            exit_code=ExitCode.DISK_LIMIT_EXCEEDED,
        )
