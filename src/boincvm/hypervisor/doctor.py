"""A finding about this host, as `boincvm doctor` tells it; drivers make some of them."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from boincvm.exit_codes import ExitCode

_PROGRAM_LIMIT = 20.0
"""Seconds in which a program must have told its version."""


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
    """What doctor ends with if this is the first that failed."""


FindKernel = Callable[[], Path | None]
"""Return the kernel of an image that is here, for a check that boots one."""
LookUp = Callable[[FindKernel], list[Check]]
"""Look at one thing; what it raises of BoincvmError and OSError is a finding too."""


def output_of(*argv: str) -> tuple[int, str]:
    """Return the exit status of a program and all that it prints; -1 where it did not start."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PROGRAM_LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return -1, str(error)
    return done.returncode, done.stdout.decode(errors="replace")


def last_line(text: str) -> str:
    """Return the last line of what a program printed, cut to a sensible length."""
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else "it printed nothing"
