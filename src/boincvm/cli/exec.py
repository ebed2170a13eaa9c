"""`boincvm exec`: runs a program in machines of the controller."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from boincvm.cli import controller_options
from boincvm.cli.output import write_errors, write_output
from boincvm.cli.parser import option
from boincvm.cli.shared_input import SharedInput
from boincvm.errors import BoincvmError, UsageError
from boincvm.job import values
from boincvm.standard_error import write_line

if TYPE_CHECKING:
    from boincvm.client.client import Table

_EPILOG = """\
Output is printed as it is written; from several machines, line by line, each with the machine's
id. The exit code is the program's; with several machines it is 1 if any of them failed.

examples:
  boincvm exec web.1 -- uname -a
  boincvm exec 'web.*' -- sh -c 'hostname; uptime'
  boincvm exec --first 2 --within 1m site=cern -- ./search.py
  boincvm exec web.1 -- sh -c 'cat >data' <data
  while read n; do boincvm exec -n web.1 -- ./prog "$n"; done <list
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    controller_options.add_common(parser)
    parser.usage = "boincvm exec [options] SELECTOR -- COMMAND [ARGUMENT ...]"
    parser.epilog = _EPILOG
    selector = parser.add_argument("vms", metavar="SELECTOR", help=controller_options.SELECTOR_HELP)
    controller_options.completed(selector)
    limit = option(values.duration)
    parser.add_argument("--env", action="append", metavar="NAME=VALUE", default=[])
    parser.add_argument("--directory", default="", help="beneath the guest's work directory")
    parser.add_argument("--timeout", type=limit, metavar="TIME", help="kill it after this time")
    parser.add_argument("--first", type=int, metavar="N", help="stop after this many answers")
    parser.add_argument("--within", type=limit, metavar="TIME", help="stop waiting after this time")
    parser.add_argument("--id", help="your own id for it, so that a retry runs nothing twice")
    parser.add_argument("--detach", action="store_true", help="print its id, and do not wait")
    parser.add_argument(
        "--input", action="store_true", help="pass standard input to several, or with --id"
    )
    parser.add_argument(
        "-n",
        "--no-stdin",
        action="store_true",
        help="no standard input, for a loop that reads its own",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the program until it has ended; return the exit code. Raises BoincvmError."""
    from boincvm.client.run import InputFeeder, Screen, follow, interruptible

    if not arguments.command:
        raise UsageError("no program to run", hint="boincvm exec SELECTOR -- PROGRAM")
    client = controller_options.client_of(arguments)
    if arguments.no_stdin and arguments.input:
        raise UsageError("found both --input and --no-stdin", hint="give one of them")
    feeds = not arguments.detach and _feeds(arguments)
    shared = SharedInput()
    given = {
        "vms": arguments.vms,
        "argv": arguments.command,
        "env": dict(_pair(text) for text in arguments.env),
        "directory": arguments.directory,
        "timeout": arguments.timeout,
        "first": arguments.first,
        "within": arguments.within,
        "id": arguments.id,
        "keep_input": feeds,
    }
    if arguments.detach:
        answer = client.call("exec", **given)
        controller_options.print_document(answer) if arguments.json else print(answer["command"])
        return 0
    answer, output = client.run(**given)
    command_id, vms = str(answer["command"]), answer["vms"]
    is_one = isinstance(vms, list) and len(vms) == 1
    screen = Screen(_nowhere if arguments.json else _write, is_prefixed=not is_one)
    with interruptible(client, command_id):
        if feeds:
            with InputFeeder(client, command_id, sys.stdin.fileno()):
                command = follow(output, screen)
        else:
            command = follow(output, screen)
    if arguments.json:
        controller_options.print_document(client.call("command", id=command_id, output=True))
    else:
        shared.report_consumed("exec")
    return _end(command, as_json=arguments.json)


def _feeds(arguments: argparse.Namespace) -> bool:
    if arguments.no_stdin:
        return False
    if arguments.input:
        return True
    is_pattern = any(sign in arguments.vms for sign in "*,=<>!") or arguments.vms == "all"
    try:
        # With an id it may be a retry, and input can be read only once.
        return not is_pattern and arguments.id is None and not os.isatty(sys.stdin.fileno())
    except (ValueError, AttributeError):
        return False  # it is closed


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UsageError(f"found --env {text[:80]!r}, expected NAME=VALUE")
    return name, value


def _write(stream: str, data: bytes) -> None:
    if stream == "stdout":
        write_output(data)
    else:
        write_errors(data)


def _nowhere(_stream: str, _data: bytes) -> None: ...


def _end(command: "Table", *, as_json: bool) -> int:
    from boincvm.client.run import ends_of

    ends = ends_of(command)
    if len(ends) == 1:
        (end,) = ends.values()
        if end.is_ours and not as_json:
            raise BoincvmError(
                end.message, hint=end.hint, exit_code=controller_options.known_code(end.code)
            )
        return end.code
    if not as_json:
        for vm, end in ends.items():
            if end.message:
                write_line(f"boincvm: {vm}: {end.message}")
        for hint in dict.fromkeys(end.hint for end in ends.values() if end.hint):
            write_line(f"  {hint}")
    return int(any(end.code for end in ends.values()))
