"""The verbs: their names, one line about each, and how one is found and started."""

import argparse
import importlib
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

from boincvm.cli.parser import Parser
from boincvm.errors import UsageError
from boincvm.exit_codes import ExitCode
from boincvm.standard_error import show


class VerbModule(Protocol):
    """The contents of a verb's file, boincvm/cli/VERB.py."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int: ...


class Verb(NamedTuple):
    """The description of one verb."""

    summary: str
    """One line for the list of verbs."""
    takes_command: bool = False
    """Whether everything after `--` is passed on unread as `arguments.command`."""
    only: str = ""
    """The one subcommand that takes a command, or "" for all of them. Of the others `--` says, as
    usual, that no option follows."""

    def has_command(self, rest: list[str]) -> bool:
        """Return whether the arguments `rest` of this verb end with a command after `--`."""
        return self.takes_command and "--" in rest and self.only in ("", rest[0])


VERBS = {
    "run": Verb("run a program, or the tasks of a job file, in a virtual machine", True),
    "map": Verb("run a program once for each of many inputs, several at a time", True),
    "image": Verb(
        "build, list, inspect and remove the images that machines start from", True, "shrink"
    ),
    "controller": Verb("control this host's machines, and guests of other hosts"),
    "invite": Verb("let machines of another host onto the controller's bus"),
    "guest": Verb("make this host a guest of a controller elsewhere"),
    "create": Verb("create a machine"),
    "clone": Verb("create machines with a copy of another one's disk"),
    "ls": Verb("list machines and guests"),
    "start": Verb("start machines, or resume saved ones"),
    "stop": Verb("shut machines down"),
    "suspend": Verb("pause machines, or save them to disk"),
    "resume": Verb("resume suspended machines"),
    "reset": Verb("switch machines off and boot them again"),
    "rm": Verb("remove machines"),
    "exec": Verb("run a program in machines of the controller", True),
    "shell": Verb("open a shell in a machine of the controller", True),
    "cp": Verb("copy files to and from machines"),
    "ps": Verb("list commands"),
    "ping": Verb("check that guests answer"),
    "logs": Verb("print a machine's log"),
    "events": Verb("print what happens to machines and commands"),
    "snapshot": Verb(
        "take, list, restore and remove snapshots of machines, and checkpoints of jobs"
    ),
    "bundle": Verb("make the folder from which volunteers run boincvm without installing anything"),
    "boinc": Verb("try a BOINC application under a real client, without a project", True),
    "libboinc": Verb("write the BOINC API library for programs in a machine"),
    "doctor": Verb("check what works on this host, and say how to fix what does not"),
    "setup": Verb("install the best hypervisor for this host"),
    "help": Verb("print the pages of the documentation"),
    "completion": Verb("print a shell completion script for bash or zsh"),
}

_HELP = """\
usage: boincvm VERB ...
       boincvm --version

boincvm runs any Linux program inside a virtual machine. The program is not ported and not
recompiled; it sees a small Linux of its own and only the files that you hand to it. The
machine starts for the program and is gone with it.

verbs:
{verbs}

examples:
  boincvm run -- uname -a
      Any command line. Its output comes as it is written; its exit code is boincvm's.
  boincvm run --image sci --memory 1G --input data.txt --output result.txt -- ./prog data.txt
      The program and data.txt go in, result.txt comes out. Nothing else is shared.
  boincvm run job.toml
      The same, written down: tasks, files, limits (boincvm help job-toml).

On a new host begin with boincvm doctor. boincvm VERB --help has each verb's options.

exit codes:
  The program's own code; 128 + N if signal N ended it; 127 if there is no such program.
  Errors of boincvm itself are 196 to 198 (a limit was reached) and 210 to 226
  (boincvm help exit-codes lists them).

documentation:
  boincvm help lists the pages; boincvm help user-guide to begin with.
"""


def help_text() -> str:
    """Return the text that `boincvm --help` prints."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items())
    return _HELP.format(verbs=verbs)


def prepare(arguments: list[str]) -> Callable[[], int]:
    """Find the verb and parse its arguments; return a function that runs it.

    The function returns the exit code. Raises UsageError.
    """
    if not arguments:
        show(help_text())
        return lambda: ExitCode.USAGE
    name, rest = arguments[0], arguments[1:]
    if name in ("-h", "--help"):
        print(help_text(), end="")
        return lambda: ExitCode.SUCCESS
    if name not in VERBS:
        raise _unknown(name)
    command = None
    if VERBS[name].has_command(rest):
        separator = rest.index("--")
        rest, command = rest[:separator], rest[separator + 1 :]
    module = load(name)
    parser = Parser(prog=f"boincvm {name}", description=VERBS[name].summary)
    module.add_arguments(parser)
    if command:
        parser.advice = ""  # which is on where a command goes
    try:
        parsed = parser.parse_args(rest)
    except SystemExit:  # argparse raises this after a help text; errors go to Parser.error
        return lambda: ExitCode.SUCCESS
    if VERBS[name].takes_command:
        parsed.command = command
    return lambda: module.run(parsed)


def load(name: str) -> VerbModule:
    """Import and return the verb's module, only when it is needed: each has its own cost."""
    return cast(VerbModule, importlib.import_module(f"boincvm.cli.{name}"))


def full_parser() -> Parser:
    """Return one parser with every verb in it, for shell completion."""
    parser = Parser(prog="boincvm", description=__doc__)
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subparsers(metavar="VERB")
    for name, verb in VERBS.items():
        load(name).add_arguments(verbs.add_parser(name, help=verb.summary))
    return parser


def _unknown(name: str) -> UsageError:
    from boincvm.similar_names import did_you_mean  # rarely needed

    kind = "option" if name.startswith("-") else "verb"
    advice = did_you_mean(name, [*VERBS, "--help", "--version"])
    return UsageError(
        f"found the unknown {kind} {name!r}, expected one of {', '.join(VERBS)}",
        hint=f"{advice}a program goes after --, like: boincvm run -- PROGRAM; see boincvm --help",
    )
