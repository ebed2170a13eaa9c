"""Findings about this host for `boincvm doctor`; drivers contribute some of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.errors import BoincvmError
from boincvm.exit_codes import ExitCode
from boincvm.host.programs import NO_WINDOW

if TYPE_CHECKING:
    from boincvm.hypervisor.verdict import Verdict

_PROGRAM_LIMIT = 20.0
"""Seconds that a program may take to print its version."""
_MOST_OUTPUT = 1 << 20
"""Bytes of its output that are read."""


class Status(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    """No job can run."""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    status: Status
    detail: str
    remedy: str = ""
    """What to type or do about it."""
    exit_code: ExitCode = ExitCode.HYPERVISOR_MISSING
    """The exit code of doctor if this is the first check that failed."""


FindKernel = Callable[[], Path | None]
"""Return the kernel of an image that is here, for a check that boots one."""
CheckFunction = Callable[[FindKernel], list[Check]]
"""Check one thing; a BoincvmError or OSError that it raises is a finding too."""


def check_verdict(
    name: str, assess: Callable[[], Verdict], describe: Callable[[Verdict], str]
) -> list[Check]:
    """Check a driver that is not the default one by its verdict: trouble is a warning.

    `describe` says what is here if it works.
    """
    try:
        verdict = assess()
    except BoincvmError as error:
        return [Check(name, Status.WARNING, error.message, error.hint)]
    if verdict.trouble:
        return [Check(name, Status.WARNING, verdict.trouble, verdict.remedy)]
    return [Check(name, Status.OK, describe(verdict))]


def output_of(*argv: str, descriptors: Sequence[int] = ()) -> tuple[int, str]:
    """Return the exit status and all output of a program, -1 if it did not start or end in time.

    It inherits `descriptors`. No pipe: what it starts may hold that open for ever.
    """
    from boincvm.host import memory_files  # only needed when something is tried

    with os.fdopen(memory_files.create("output"), "w+b") as output:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=_PROGRAM_LIMIT,
                check=False,
                pass_fds=descriptors,
                creationflags=NO_WINDOW,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return -1, str(error)
        output.seek(0)
        return done.returncode, output.read(_MOST_OUTPUT).decode(errors="replace")


def last_line(text: str) -> str:
    """Return the last line of what a program printed, cut to a sensible length."""
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else "it printed nothing"
