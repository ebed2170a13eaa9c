"""`boincvm boinc`: tools for those who make a BOINC application."""

import argparse
import shlex
from pathlib import Path

from boincvm.cli.controller_options import waiting
from boincvm.cli.output import print_json
from boincvm.cli.parser import add_verb
from boincvm.errors import HostError, InputFileError, TaskFailedError, UsageError
from boincvm.exit_codes import ExitCode
from boincvm.standard_error import is_terminal, write_line

_TRY = """\
Run one task of an app version under the BOINC client that is installed here, to its end. The
client gets an empty data directory with nothing but this task: it needs no project, no server and
no network, and a client that already runs here is left alone. DIRECTORY has version.xml and its
files, as update_versions takes them; ARGUMENTs are the task's command line.

example, in an empty directory ($example is examples/boinc-ecm of boincvm's source):
  boincvm boinc try --input number.txt=$example/number.txt --output factors.txt app -- 300 400 1060
"""

_EXAMPLES = """\
examples:
  boincvm boinc try --input in.dat=in.dat --output out.dat app
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EXAMPLES
    verbs = parser.add_subparsers(dest="boinc_verb", metavar="VERB", required=True)
    trial = add_verb(verbs, "try", "run a task of an app version under a real client", _TRY)
    trial.usage = "boincvm boinc try [options] DIRECTORY [-- ARGUMENT ...]"
    trial.add_argument("directory", metavar="DIRECTORY", type=Path, help="the app version's")
    trial.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="an input of the task, by its logical name",
    )
    trial.add_argument(
        "--output",
        action="append",
        default=[],
        metavar="NAME",
        help="an output of the task, by its logical name; it is copied to this directory",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the task. Raises BoincvmError, OSError."""
    from boincvm.boinc.trial import read_version, run_trial
    from boincvm.image.interruption import terminable

    version = read_version(arguments.directory)
    inputs = [_input(text) for text in arguments.input]
    for name in arguments.output:
        if name in ("", ".", "..") or "/" in name:
            raise UsageError(f"found the output {name[:80]!r}, expected a name without a slash")
    # The client would run on after a signal.
    with terminable(), waiting("running the task under the BOINC client"):
        ended = run_trial(
            version,
            inputs=inputs,
            outputs=arguments.output,
            command_line=shlex.join(arguments.command or ()),
            destination=Path(),
            show=_show,
        )
    if ended.stderr:
        write_line(ended.stderr)
    if ended.postponed:
        raise HostError(
            f"the task did not end: {ended.postponed}",
            hint="the client would start it again later; the lines above say what it waits for",
        )
    if ended.status != 0:
        raise TaskFailedError(
            f"the task failed with {ended.status}",
            hint="the lines above are its stderr.txt; boincvm help run-under-boinc explains them",
        )
    if not ended.is_complete or ended.missing:
        missing = ", ".join(ended.missing) or "its files"
        raise TaskFailedError(
            f"the task ended with 0, but the client counts it as failed: it lacks {missing}",
            hint="an output has the name by which the job writes it",
        )
    if arguments.json:
        print_json({"exit_status": ended.status, "stderr": ended.stderr})
    else:
        print("the task has succeeded")
    return ExitCode.SUCCESS


def _show(line: str) -> None:
    """Show a line of the client's, in place of the one that tells how long it has run so far."""
    write_line(f"\r\x1b[K{line}" if is_terminal() else line)


def _input(text: str) -> tuple[str, Path]:
    name, sign, path = text.partition("=")
    if not sign or not name or "/" in name:
        raise UsageError(f"found the input {text[:80]!r}, expected NAME=FILE")
    if not Path(path).is_file():
        raise InputFileError(f"the input {path!r} is not a file")
    return name, Path(path)
