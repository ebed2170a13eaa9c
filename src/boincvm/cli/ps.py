"""`boincvm ps`: lists the commands that machines were given."""

import argparse
import shlex
import time
from collections import Counter
from typing import TYPE_CHECKING

from boincvm.cli import controller_options

if TYPE_CHECKING:
    from boincvm.client.client import Table

_EPILOG = """\
examples:
  boincvm ps                           those that run
  boincvm ps --all                     also those that have ended, which are kept for a day
"""
_NONE_RUNS = "no command is running; see boincvm ps --all"
_HEADER = ("ID", "SINCE", "STATE", "MACHINES", "PROGRAM")
_LONGEST = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    controller_options.add_common(parser)
    parser.epilog = _EPILOG
    parser.add_argument("-a", "--all", action="store_true", help="include those that have ended")


def run(arguments: argparse.Namespace) -> int:
    """Print the list. Raises BoincvmError."""
    finished = None if arguments.all else False
    answer = controller_options.client_of(arguments).call("commands", finished=finished)
    if arguments.json:
        controller_options.print_document(answer)
        return 0
    rows = [_row(command) for command in controller_options.tables_in(answer, "commands")]
    nothing = "there are no commands" if arguments.all else _NONE_RUNS
    controller_options.print_rows(_HEADER, rows, nothing=nothing)
    return 0


def _row(command: "Table") -> tuple[str, ...]:
    at = command.get("submitted_at")
    argv, answers = command.get("argv"), command.get("answers")
    program = shlex.join(map(str, argv)) if isinstance(argv, list) else ""
    program = "".join(character if character.isprintable() else " " for character in program)
    machines = list(answers) if isinstance(answers, dict) else []
    return (
        str(command.get("id")),
        time.strftime("%m-%d %H:%M:%S", time.localtime(at if isinstance(at, int | float) else 0)),
        _states(answers.values() if isinstance(answers, dict) else ()),
        ", ".join(machines[:3]) + (f", {len(machines) - 3} more" if len(machines) > 3 else ""),
        program if len(program) <= _LONGEST else program[: _LONGEST - 1] + "…",
    )


def _states(answers: object) -> str:
    """Count the states, as in `2 ended, 1 running`."""
    from boincvm.client.run import end_of

    counts: Counter[str] = Counter()
    for answer in answers:  # type: ignore[attr-defined]
        state = str(answer.get("state"))
        progress = answer.get("progress")
        if state in ("sent", "running"):
            state = f"{state} {progress:.0%}" if progress is not None else state
        else:
            state = end_of(answer).message or "ended"
        counts[state] += 1
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {state}" for state, count in counts.most_common())
