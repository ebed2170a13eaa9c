"""`boincvm clone`: creates machines like another one, each with a copy of its disk."""

import argparse
from typing import TYPE_CHECKING

from boincvm.cli import controller_options

if TYPE_CHECKING:
    from boincvm.client.client import Table

_EPILOG = """\
The machine must be off. Its clones have its image, size and labels, and everything on its disk;
snapshots are not copied.

examples:
  boincvm clone web.1 web.2
  boincvm clone template web.1 web.2 web.3
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    controller_options.add_common(parser)
    parser.epilog = _EPILOG
    controller_options.completed(
        parser.add_argument("vm", metavar="MACHINE", help="the one to copy")
    )
    parser.add_argument(
        "names", metavar="NAME", nargs="+", help="the new ones' ids: letters, digits and . _ -"
    )


def run(arguments: argparse.Namespace) -> int:
    """Create the machines. Raises BoincvmError."""
    client = controller_options.client_of(arguments)

    def clone(name: str) -> "Table":
        with controller_options.waiting(f"copying {arguments.vm} to {name}"):
            return client.call("clone", vm=arguments.vm, name=name)

    if len(arguments.names) > 1:
        return controller_options.show_each_created(arguments.names, clone, as_json=arguments.json)
    controller_options.show_created(clone(arguments.names[0]), as_json=arguments.json)
    return 0
