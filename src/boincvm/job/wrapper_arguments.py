"""Parses the wrapper's own command line, the same as that of BOINC's wrapper (samples/wrapper).

A BOINC client passes the workunit's arguments, then those of the app version.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from boincvm.errors import UsageError
from boincvm.job.values import MOST_CPUS, describe

_MOST_DEVICES = 1 << 16
_LONGEST_PERIOD = 3650 * 86400.0
_LARGEST_MEMORY = float(1 << 24)
"""MiB."""
HELP = """\
usage: boincvm-wrapper [OPTION ...]

A BOINC client starts it in place of BOINC's wrapper, in the directory of a task; it runs the
job.xml there. Without a client it runs it just the same, in any directory that has job.xml and
its files under their logical names.

options, those of BOINC's wrapper:
  --nthreads N               processors for the job's programs
  --device N                 number of the GPU
  --memory_size_mb N         memory of machines whose size is not in job.xml
  --trickle SECONDS          send trickle-up messages with the run time so often
  --sporadic                 the application computes now and then
  --use_tstp                 suspend programs by SIGTSTP
  --passthrough_child ARGUMENT ...
                             append all that follows to the programs' command lines
  --passthrough_all          pass everything to the programs, also these options
  -v, --version              print the version
  -h, --help                 print this and run nothing

boincvm help run-under-boinc tells how to make an application, boincvm help job-xml what job.xml
may have.
"""
_HINT = (
    "the wrapper's own arguments: --nthreads N, --device N, --memory_size_mb N, --trickle SECONDS, "
    "--sporadic, --use_tstp, --version, --passthrough_all, --passthrough_child ARGUMENT…"
)
_CHILD = "--passthrough_child"
PASS_ALL = "--passthrough_all"  # noqa: S105 - no password
"""The only option that BOINC's wrapper does not have."""


class WrapperArguments(NamedTuple):
    """The arguments that the wrapper was given."""

    threads: int = 1
    device: int | None = None
    memory: int | None = None
    """Bytes, for machines whose size is not in the job file."""
    trickle_period: float | None = None
    """Seconds of run time; None: no trickle messages."""
    is_sporadic: bool = False
    use_tstp: bool = False
    show_version: bool = False
    show_help: bool = False
    child_arguments: tuple[str, ...] = ()
    """Appended to the command lines of tasks with `append_cmdline_args`: all that follows
    `--passthrough_child`; with `--passthrough_all` everything that the wrapper was given, even its
    own arguments, as in BOINC's wrapper before October 2023."""
    unknown: tuple[str, ...] = ()
    """Arguments that belong to neither the wrapper nor, by these rules, its tasks."""


def parse_wrapper_arguments(argv: Sequence[str]) -> WrapperArguments:
    """Parse `argv`, without the program's name; the last of a repeated argument counts.

    `--help` counts wherever it stands, but not where all is passed to a program.
    Raises UsageError if a number is missing or invalid.
    """
    own = argv[: argv.index(_CHILD)] if _CHILD in argv else argv
    if "--help" in own and PASS_ALL not in own:
        return WrapperArguments(show_help=True)
    numbers: dict[str, float] = {}
    flags: set[str] = set()
    child_arguments: tuple[str, ...] = ()
    unknown: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word in ("--nthreads", "--device", "--trickle", "--memory_size_mb"):
            numbers[word] = _number(word, next(rest, None))
        elif word in ("--sporadic", "--use_tstp", "--version", "-v", PASS_ALL):
            flags.add(word)
        elif word == _CHILD:
            child_arguments = tuple(rest)
        else:
            unknown.append(word)
    if PASS_ALL in flags:
        child_arguments, unknown = tuple(word for word in argv if word != PASS_ALL), []
    device = numbers.get("--device", -1.0)
    memory = int(min(max(numbers.get("--memory_size_mb", 0.0), 0.0), _LARGEST_MEMORY)) << 20
    trickle = numbers.get("--trickle", 0.0)
    return WrapperArguments(
        threads=int(min(max(numbers.get("--nthreads", 1.0), 1.0), MOST_CPUS)),
        device=int(min(device, _MOST_DEVICES)) if device >= 0 else None,
        memory=memory if memory > 0 else None,
        trickle_period=min(trickle, _LONGEST_PERIOD) if trickle > 0 else None,
        is_sporadic="--sporadic" in flags,
        use_tstp="--use_tstp" in flags,
        show_version=not flags.isdisjoint(("--version", "-v")),
        # Among arguments of a program it is one of them, such as `-h 5`.
        show_help=set(unknown) == {"-h"},
        child_arguments=child_arguments,
        unknown=tuple(unknown),
    )


def arguments_of_children(
    arguments: WrapperArguments, *, is_for_vmwrapper: bool
) -> tuple[str, ...]:
    """Return the arguments for the tasks that accept some.

    VMWrapper has no arguments of its own and passes on what it is given, so unknown arguments are
    its tasks'. For other jobs they are an error, as in BOINC's wrapper.

    Raises UsageError.
    """
    if is_for_vmwrapper:
        return (*arguments.unknown, *arguments.child_arguments)
    if arguments.unknown:
        raise UsageError(
            f"unknown argument {describe(arguments.unknown[0])}",
            hint="arguments for the job's programs come after --passthrough_child;"
            f" {PASS_ALL} passes everything to them, as BOINC's wrapper did before October 2023",
        )
    return arguments.child_arguments


def _number(option: str, text: str | None) -> float:
    """Read a number; plan classes write a count of processors as `4` or as `4.000000`."""
    found = "nothing" if text is None else describe(text)
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{option}: found {found}, expected a number", hint=_HINT)
    return number
