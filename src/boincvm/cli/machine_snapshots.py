"""`boincvm snapshot` for machines of the controller."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.cli import controller_options
from boincvm.errors import BoincvmError
from boincvm.json_value import is_number

if TYPE_CHECKING:
    from boincvm.client.client import Table

_LATEST = 253_402_300_799
"""Seconds from 1970 to the end of the year 9999."""
_HEADER = ("NAME", "MADE", "SIZE", "DESCRIPTION")


def means_machines(arguments: argparse.Namespace) -> bool:
    """Tell whether the target of `take` and `ls` names machines rather than a job's directory.

    Paths are job directories, and so is a directory's mere name, unless a machine has it, too. An
    option that only machines have takes precedence.
    """
    if arguments.vm or arguments.controller:
        return True
    if getattr(arguments, "name", None) or getattr(arguments, "description", None):
        return True
    target = arguments.target
    if target in (".", "..") or "/" in target:
        return False
    return not Path(target).is_dir() or _exists(arguments)


def _exists(arguments: argparse.Namespace) -> bool:
    """Tell whether a controller that can be asked knows a machine that the target selects."""
    try:
        answer = controller_options.client_of(arguments).call("list", vms=arguments.target)
    except BoincvmError:  # a job needs no controller, and its directory may be no selector
        return False
    return bool(controller_options.tables_in(answer, "vms"))


def take(arguments: argparse.Namespace) -> int:
    """Take snapshots of all selected machines while they run on. Raises BoincvmError."""
    answer = _change(arguments, "snapshot_take", description=arguments.description)
    return controller_options.show_outcomes(
        answer,
        as_json=arguments.json,
        describe=lambda outcome: f"has the snapshot {_snapshot_of(outcome)}",
    )


def restore(arguments: argparse.Namespace) -> int:
    """Restore machines to a snapshot. Raises BoincvmError."""
    answer = _change(arguments, "snapshot_restore")
    return controller_options.show_outcomes(
        answer,
        as_json=arguments.json,
        describe=lambda outcome: f"was restored from {_snapshot_of(outcome)}",
    )


def remove(arguments: argparse.Namespace) -> int:
    """Remove a snapshot of machines. Raises BoincvmError."""
    answer = _change(arguments, "snapshot_remove")
    return controller_options.show_outcomes(
        answer,
        as_json=arguments.json,
        describe=lambda _outcome: f"no longer has the snapshot {arguments.name}",
    )


def _snapshot_of(outcome: "Table") -> str:
    return controller_options.printable(outcome.get("snapshot", "one without a name"))


def _change(arguments: argparse.Namespace, operation: str, **asked: object) -> "dict[str, Table]":
    client = controller_options.client_of(arguments)
    target = arguments.target
    try:
        with controller_options.waiting(f"{operation.replace('_', ' ')} {target}"):
            answer = client.call(operation, vms=target, name=arguments.name, **asked)
    except BoincvmError as error:
        raise _also_no_directory(error, arguments) from error
    outcomes = answer.get("outcomes")
    return outcomes if isinstance(outcomes, dict) else {}  # type: ignore[return-value]


def show(arguments: argparse.Namespace) -> int:
    """List a machine's snapshots, oldest first. Raises BoincvmError."""
    try:
        answer = controller_options.client_of(arguments).call("snapshot_list", vm=arguments.target)
    except BoincvmError as error:
        raise _also_no_directory(error, arguments) from error
    if arguments.json:
        controller_options.print_document(answer)
        return 0
    rows = [_row(snapshot) for snapshot in controller_options.tables_in(answer, "snapshots")]
    vm = arguments.target
    nothing = f"{vm} has no snapshots; take one: boincvm snapshot take {vm}"
    controller_options.print_rows(_HEADER, rows, nothing=nothing)
    return 0


def _row(snapshot: "Table") -> tuple[str, ...]:
    from boincvm.sizes import format_size

    size = snapshot.get("size")
    return (
        controller_options.printable(snapshot.get("name")),
        _time(snapshot.get("made")),
        format_size(size) if is_number(size) else "-",
        controller_options.printable(snapshot.get("description")),
    )


def _time(made: object) -> str:
    """Return a time as a local one, or `-` if there is no such time."""
    if not is_number(made, _LATEST):
        return "-"
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(made))
    except (OverflowError, ValueError, OSError):  # Windows knows the time until the year 3000
        return "-"


def _also_no_directory(error: BoincvmError, arguments: argparse.Namespace) -> BoincvmError:
    """Extend the hint of `error` if the target may be the mistyped name of a job's directory."""
    if arguments.snapshot_verb not in ("take", "ls") or arguments.vm or arguments.controller:
        return error
    hint = f"{error.hint}; a job's directory is given as ./{arguments.target}"
    return BoincvmError(error.message, hint=hint, exit_code=error.exit_code)
