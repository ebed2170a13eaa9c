"""`boincvm image seed`: a disk that tells a machine of a cloud what it is."""

import argparse
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from boincvm.cli import broker
from boincvm.cli.create import labels_of
from boincvm.cli.output import print_indented_json
from boincvm.cli.parser import add_verb
from boincvm.errors import UsageError

if TYPE_CHECKING:
    from boincvm.image.cloud.seed import Guest


def add_arguments(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb and its options."""
    seed = add_verb(
        verbs,
        "seed",
        "write a disk that tells a machine of a cloud what it is",
        "Write a seed (cloud-init's NoCloud: an ISO 9660 disc with the label cidata) for a\n"
        "machine of boincvm image export --cloud, or of a vendor's image with cloud-init: its\n"
        "name, files, commands that it runs once. With --broker it becomes a guest of a\n"
        "controller by itself: WHO CONTROLS THE BUS CAN RUN ANYTHING IN IT AS ROOT.\n\n"
        "examples:\n"
        "  boincvm image seed --hostname a --run 'echo 91 | ecm 1000' --power-off a.iso\n"
        "  boincvm image seed --hostname a --broker stomp://lab@big:61613 \\\n"
        "      --passcode-file passcode --broker-ca server.pem a.iso",
    )
    seed.add_argument("file", metavar="FILE")
    seed.add_argument("--hostname", metavar="NAME", default="", help="the machine's host name")
    seed.add_argument(
        "--instance-id",
        metavar="ID",
        default="",
        help="names the machine: another one runs the commands again; default: a new one",
    )
    seed.add_argument(
        "--file",
        metavar="SRC:DST",
        action="append",
        default=[],
        dest="own_files",
        help="a file of this host, and its absolute path in the machine; repeatable",
    )
    seed.add_argument(
        "--run",
        metavar="COMMAND",
        action="append",
        default=[],
        dest="commands",
        help="what the machine's /bin/sh runs once; repeatable",
    )
    seed.add_argument(
        "--power-off", action="store_true", help="power the machine off after these commands"
    )
    broker.add_arguments(
        seed, "the bus whose guest the machine becomes, like stomp://LOGIN@HOST:PORT"
    )
    seed.add_argument(
        "--id", help="its name on the bus (default: the name it was invited by, and its host name)"
    )
    seed.add_argument(
        "--label", action="append", default=[], metavar="NAME=VALUE", help="for selectors to match"
    )
    seed.add_argument("--force", action="store_true", help="replace FILE if it exists")


def run(arguments: argparse.Namespace) -> int:
    """Do what `arguments` say; return the exit code. Raises BoincvmError."""
    from boincvm.errors import host_error
    from boincvm.host.atomic_files import replacement
    from boincvm.host.files import create_new
    from boincvm.image.cloud.seed import Seed, seed_disc
    from boincvm.image.target_file import check_target
    from boincvm.standard_error import write_line

    path = Path(arguments.file)
    check_target(path, force=arguments.force)
    guest = _guest(arguments)
    seed = Seed(
        host_name=arguments.hostname,
        instance=arguments.instance_id,
        files=tuple(_own_file(text) for text in arguments.own_files),
        commands=tuple(arguments.commands),
        is_powered_off=arguments.power_off,
        guest=guest,
    )
    disc = seed_disc(seed)
    try:
        with replacement(path, is_unique=True) as part, create_new(part) as file:
            part.chmod(0o600)
            file.write(disc)
    except OSError as error:
        raise host_error(f"the seed cannot be written to {path}", error) from error
    if guest is not None and guest.broker.can_be_read:
        words = "warning: without --broker-ca anyone who listens on the network learns the passcode"
        write_line(words)
    if arguments.json:
        print_indented_json(
            {"file": str(path), "size": len(disc), "guest": None if guest is None else guest.id}
        )
    else:
        which = "" if guest is None else f"; the machine becomes the guest {guest.id}"
        print(f"the seed has been written: {path}{which}")
    return 0


def _own_file(text: str) -> tuple[Path, PurePosixPath]:
    source, colon, target = text.rpartition(":")
    if not colon or not source:
        raise UsageError(f"found --file {text[:80]!a}, expected SRC:DST")
    return Path(source), PurePosixPath(target)


def _guest(arguments: argparse.Namespace) -> "Guest | None":
    """Return which guest the machine becomes, None if it does not. Raises UsageError."""
    broker_address = broker.broker_of(arguments)
    if broker_address is None:
        if arguments.id or arguments.label:
            raise UsageError("--id and --label are for a guest on a bus, and --broker is missing")
        return None
    from boincvm.image.cloud.seed import Guest
    from boincvm.node.host_node import id_on_bus

    name, login = arguments.hostname, broker_address.login
    is_free = broker_address.dialect != "embedded" or name == login
    default = name if is_free or name.startswith(f"{login}.") else f"{login}.{name}"
    chosen = id_on_bus(broker_address, arguments.id or (default if name else login))
    return Guest(broker_address, chosen, labels_of(arguments.label))
