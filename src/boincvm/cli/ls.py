"""`boincvm ls`: lists the machines of this host and the guests on the bus."""

import argparse
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from boincvm.cli import controller_options

if TYPE_CHECKING:
    from boincvm.client.client import Client, Table

_EPILOG = """\
examples:
  boincvm ls
  boincvm ls 'web.*'
  boincvm ls --watch                   again whenever something changes; Ctrl-C ends it
  boincvm ls --quiet site=cern         only their ids
  boincvm ls --wide                    with their disks and labels

CPU is in processors (1.00 keeps one busy), MEMORY what the guest was given, ON HOST what the host
has given for it (the guest's and the hypervisor's own), UP how long ago it was started. HOST is the
name by which a host was invited, as create --host takes it, or else the host's own name, by which
the label host selects its machines. DISK is the size that a machine was created with, if it is not
its image's. LABELS are as selectors name them.
"""
_HEADER = (
    *("ID", "STATE", "HOST", "IMAGE", "CPUS", "CPU", "MEMORY", "ON HOST"),
    *("PROGRESS", "UP", "COMMANDS"),
)
_WIDE_HEADER = (*_HEADER, "DISK", "LABELS")
_OWN_COLUMN = frozenset(("cpus", "host", "image", "memory"))
"""Labels that every machine has."""
_HOME = "\x1b[H\x1b[J"
_LATEST = (1 << 53) - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    controller_options.add_common(parser)
    parser.epilog = _EPILOG
    controller_options.completed(
        parser.add_argument(
            "vms",
            metavar="SELECTOR",
            nargs="?",
            default="all",
            help=f"which: {controller_options.SELECTOR_HELP} (default: all)",
        )
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print only their ids")
    parser.add_argument(
        "-w", "--wide", action="store_true", help="show also their disks and labels"
    )
    parser.add_argument(
        "--watch", action="store_true", help="print again whenever something changes"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the list. Raises BoincvmError."""
    client = controller_options.client_of(arguments)
    if not arguments.watch:
        _show(_machines(client, arguments.vms), arguments)
        return 0
    is_terminal = sys.stdout.isatty()
    try:
        for _ in _news(client):
            found = _machines(client, arguments.vms)
            if is_terminal and not arguments.json:
                sys.stdout.write(_HOME)
            _show(found, arguments)
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 0
    return 0


def _news(client: "Client") -> Iterator[None]:
    """Yield once immediately, and after each event that is newer than what was shown last."""
    seen = client.call("events", after=_LATEST)["last"]
    yield None
    for event in client.events(int(str(seen)), follow=True):
        if int(str(event["number"])) > int(str(seen)):
            seen = client.call("events", after=_LATEST)["last"]
            yield None


def _machines(client: "Client", vms: str) -> "list[Table]":
    return controller_options.tables_in(client.call("list", vms=vms), "vms")


def _show(found: "list[Table]", arguments: argparse.Namespace) -> None:
    if arguments.json:
        controller_options.print_document({"vms": found})
    elif arguments.quiet:
        for vm in found:
            print(vm["id"])
    elif found:
        now = time.time()
        if arguments.wide:
            rows = [(*_row(vm, now), *_more(vm)) for vm in found]
            controller_options.print_rows(_WIDE_HEADER, rows)
        else:
            controller_options.print_rows(_HEADER, [_row(vm, now) for vm in found])
    elif arguments.vms == "all":
        print("there are no machines yet; create one: boincvm create NAME")
    else:
        print(f"no machine matches {arguments.vms}")


def _row(vm: "Table", now: float) -> tuple[str, ...]:
    cpu, progress, started = vm.get("cpu"), vm.get("progress"), vm.get("started_at")
    commands = vm.get("commands")
    return (
        str(vm["id"]),
        str(vm["state_label"]),
        str(vm.get("invited_as") or vm["host"] or "-"),
        str(vm["image"] or "-"),
        str(vm["cpus"] or "-"),
        f"{cpu:.2f}" if isinstance(cpu, int | float) else "-",
        _size(vm.get("memory")),
        _size(vm.get("memory_used")),
        f"{progress:.0%}" if isinstance(progress, int | float) else "-",
        _age(now - started) if isinstance(started, int | float) else "-",
        str(commands) if commands else "-",
    )


def _more(vm: "Table") -> tuple[str, str]:
    found = vm.get("labels")
    labels = found.items() if isinstance(found, dict) else ()
    shown = [f"{name}={value}" for name, value in labels if name not in _OWN_COLUMN]
    return _size(vm.get("disk")), controller_options.printable(",".join(sorted(shown))) or "-"


def _size(value: object) -> str:
    from boincvm.sizes import format_size

    return format_size(value) if isinstance(value, int | float) else "-"


def _age(seconds: float) -> str:
    """Format a duration with at most two units."""
    whole = max(int(seconds), 0)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days}d{hours % 24}h"
    if hours:
        return f"{hours}h{minutes % 60}m"
    return f"{minutes}m{whole % 60}s" if minutes else f"{whole}s"
