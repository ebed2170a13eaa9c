"""`boincvm invite`: lets another host's machines onto this controller's bus."""

import argparse
import time

from boincvm.cli import controller_options
from boincvm.errors import UsageError
from boincvm.standard_error import write_line

_EPILOG = """\
The names of all its machines begin with `NAME.`; it can neither impersonate other guests nor
receive their messages.

examples:
  umask 077; boincvm invite lab >passcode
                                       prints the passcode once, and the next steps on the terminal
  boincvm invite                       which hosts are invited
  boincvm invite --revoke lab          disconnects it at once
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    controller_options.add_common(parser)
    parser.epilog = _EPILOG
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="the host's name, with which its machines' names begin",
    )
    parser.add_argument("--revoke", action="store_true", help="withdraw the invitation")


def run(arguments: argparse.Namespace) -> int:
    """Invite, list or revoke. Raises BoincvmError."""
    client = controller_options.client_of(arguments)
    if arguments.name is None:
        if arguments.revoke:
            raise UsageError("--revoke needs the host's name", hint="boincvm invite lists them")
        answer = client.call("invitations")
    elif arguments.revoke:
        answer = client.call("revoke", name=arguments.name)
    else:
        answer = client.call("invite", name=arguments.name)
    if arguments.json:
        controller_options.print_document(answer)
    elif arguments.name is None:
        _list(answer["invitations"])
    elif arguments.revoke:
        print(f"{arguments.name} is no longer invited")
    else:
        print(answer["passcode"], flush=True)
        write_line("That is the passcode, which is not shown again. On the other host, put it into")
        write_line("the file passcode, readable only by you, and start its controller:")
        write_line(f"  {answer['command']}")
        for note in answer["notes"] if isinstance(answer["notes"], list) else ():
            write_line(f"note: {note}")
    return 0


def _list(found: object) -> None:
    rows = [
        (
            str(invitation["name"]),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(float(str(invitation["made"])))),
            str(invitation["guests"]),
        )
        for invitation in (found if isinstance(found, list) else ())
    ]
    nothing = "no host is invited; invite one: boincvm invite NAME"
    controller_options.print_rows(("HOST", "INVITED", "GUESTS"), rows, nothing=nothing)
