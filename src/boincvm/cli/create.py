"""`boincvm create`: creates machines on the controller's host or an invited one, powered off."""

import argparse
import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.cli import controller_options
from boincvm.errors import InputFileError, UsageError, host_error
from boincvm.host.files import read_regular

if TYPE_CHECKING:
    from boincvm.client.client import Table

_EPILOG = """\
examples:
  boincvm create web.1
  boincvm create --memory 1G --cpus 2 --label site=cern --label rack=7 web.2
  boincvm create --image sci --display --network lab
  boincvm create --count 10 web                web.1 to web.10
  boincvm create --autostart --network --first-boot set-up.sh db
  boincvm create lab.web                       on the invited host lab; so does: --host lab web
"""
_MOST_AT_ONCE = 1000
_LARGEST_SCRIPT = 64 << 10
"""Bytes, as the controller allows."""


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
        "--label", action="append", default=[], metavar="NAME=VALUE", help="for selectors to match"
    )
    parser.add_argument(
        "--autostart",
        action="store_true",
        help="let the controller start it after each boot of the host",
    )
    parser.add_argument(
        "--first-boot",
        metavar="FILE",
        type=Path,
        help="a script that runs in it before it is up for the first time",
    )
    parser.add_argument(
        "--count", type=_count, metavar="N", help="create N machines: NAME.1 to NAME.N"
    )
    parser.add_argument(
        "--host",
        metavar="HOST",
        help="create it on this invited host, as HOST.NAME (default: where NAME says)",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_AT_ONCE:
        raise argparse.ArgumentTypeError(
            f"found {text[:20]!r}, expected a whole number from 1 to {_MOST_AT_ONCE}"
        )
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Create the machines. Raises BoincvmError."""
    labels = labels_of(arguments.label)
    first_boot = None if arguments.first_boot is None else _script(arguments.first_boot)
    client = controller_options.client_of(arguments)
    first = arguments.name
    if arguments.host and not first.startswith(f"{arguments.host}."):
        first = f"{arguments.host}.{first}"

    def create(name: str) -> "Table":
        with controller_options.waiting(f"creating {name}"):
            return client.call(
                "create",
                name=name,
                image=arguments.image,
                memory=arguments.memory,
                cpus=arguments.cpus,
                disk=arguments.disk,
                network=arguments.network,
                display=arguments.display,
                labels=labels,
                autostart=arguments.autostart,
                first_boot=first_boot,
                host=arguments.host,
            )

    if arguments.count is not None:
        names = [f"{first}.{number}" for number in range(1, arguments.count + 1)]
        return controller_options.show_each_created(names, create, as_json=arguments.json)
    controller_options.show_created(create(first), as_json=arguments.json)
    return 0


def _script(path: Path) -> str:
    """Read a first-boot script. Raises InputFileError for what could not run in a guest."""
    try:
        data = read_regular(path.resolve(), _LARGEST_SCRIPT + 1)
    except OSError as error:
        raise host_error(
            f"the script {str(path)!r} cannot be read", error, InputFileError
        ) from error
    if len(data) > _LARGEST_SCRIPT:
        raise _no_script(
            path,
            f"it has more than {_LARGEST_SCRIPT >> 10} KiB",
            "copy a longer one into the machine: boincvm cp",
        )
    if not data.strip():
        raise _no_script(path, "it is empty", "leave --first-boot out")
    if data.startswith(codecs.BOM_UTF8) or b"\r\n" in data:
        raise _no_script(
            path,
            "it is written as Windows writes texts, which no shell understands",
            "save it with Unix line endings and without a byte order mark",
        )
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise _no_script(path, "it is not a text in UTF-8", "name a shell script")
    return text


def _no_script(path: Path, why: str, hint: str) -> InputFileError:
    return InputFileError(f"{str(path)!r} cannot be a first-boot script: {why}", hint=hint)


def labels_of(texts: Sequence[str]) -> dict[str, str]:
    """Return labels by name. Raises UsageError if one is no label, or has two values."""
    labels: dict[str, str] = {}
    for name, value in map(_label_of, texts):
        if labels.setdefault(name, value) != value:
            raise UsageError(
                f"found the label {name[:80]!r} twice, expected one value",
                hint="a label has one value; give one of the two another name",
            )
    return labels


def _label_of(text: str) -> tuple[str, str]:
    """Split `text` into a label's name and value. Raises UsageError."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UsageError(f"found the label {text[:80]!r}, expected NAME=VALUE")
    return name, value
