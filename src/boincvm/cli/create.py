"""`boincvm create`: creates a machine of this host's controller, powered off."""

import argparse

from boincvm.cli import controller_options
from boincvm.errors import UsageError

_EPILOG = """\
examples:
  boincvm create web.1
  boincvm create --memory 1G --cpus 2 --label site=cern --label rack=7 web.2
  boincvm create --image sci --display --network lab
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    controller_options.add_common(parser)
    parser.epilog = _EPILOG
    parser.add_argument("name", metavar="NAME", help="its id: letters, digits and . _ -")
    parser.add_argument("--image", metavar="NAME", help="the image to start from (default: base)")
    parser.add_argument("--memory", metavar="SIZE", help="like 2G (default: 512M)")
    parser.add_argument("--cpus", type=int, metavar="N", help="virtual processors (default: 1)")
    parser.add_argument("--disk", metavar="SIZE", help="like 8G (default: the image's)")
    parser.add_argument(
        "--network", action="store_true", help="let it reach the network (default: it cannot)"
    )
    parser.add_argument("--display", action="store_true", help="give it a screen")
    parser.add_argument(
        "--label", action="append", default=[], metavar="NAME=VALUE", help="to address it by"
    )


def run(arguments: argparse.Namespace) -> int:
    """Create the machine. Raises BoincvmError."""
    labels = dict(label_of(text) for text in arguments.label)
    made = controller_options.client_of(arguments).call(
        "create",
        name=arguments.name,
        image=arguments.image,
        memory=arguments.memory,
        cpus=arguments.cpus,
        disk=arguments.disk,
        network=arguments.network,
        display=arguments.display,
        labels=labels,
    )
    if arguments.json:
        controller_options.print_document(made)
    else:
        print(f"{made['id']} has been created; start it with: boincvm start {made['id']}")
    return 0


def label_of(text: str) -> tuple[str, str]:
    """Split `text` into a label's name and value. Raises UsageError."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UsageError(f"found the label {text[:80]!r}, expected NAME=VALUE")
    return name, value
