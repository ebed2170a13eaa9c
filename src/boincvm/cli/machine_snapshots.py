"""`boincvm snapshot` for machines of the controller."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.cli import controller_options
from boincvm.errors import BoincvmError

if TYPE_CHECKING:
    from boincvm.client.client import Table

_HEADER = ("NAME", "MADE", "SIZE", "DESCRIPTION")


def means_machines(arguments: argparse.Namespace) -> bool:
    """Tell whether the target of `take` and `ls` names machines rather than a job's directory.

    Existing directories, and names that look like paths, are job directories. An option that only
    machines have takes precedence.
    """
    if arguments.vm or arguments.controller:
        return True
    if getattr(arguments, "name", None) or getattr(arguments, "description", None):
        return True
    target = arguments.target
    return target not in (".", "..") and "/" not in target and not Path(target).is_dir()


def take(arguments: argparse.Namespace) -> int:
    """Take snapshots of all selected machines while they run on. Raises BoincvmError."""
    answer = _change(arguments, "snapshot_take", description=arguments.description)
    return controller_options.show_outcomes(
        answer,
        as_json=arguments.json,
        describe=lambda outcome: f"has the snapshot {outcome['snapshot']}",
    )


def restore(arguments: argparse.Namespace) -> int:
    """Restore machines to a snapshot. Raises BoincvmError."""
    answer = _change(arguments, "snapshot_restore")
    return controller_options.show_outcomes(
        answer,
        as_json=arguments.json,
        describe=lambda outcome: f"goes on as in {outcome['snapshot']}",
    )


def remove(arguments: argparse.Namespace) -> int:
    """Remove a snapshot of machines. Raises BoincvmError."""
    answer = _change(arguments, "snapshot_remove")
    return controller_options.show_outcomes(
        answer,
        as_json=arguments.json,
        describe=lambda _one: f"no longer has the snapshot {arguments.name}",
    )


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

    made, size = snapshot.get("made"), snapshot.get("size")
    at = time.localtime(made if isinstance(made, int | float) else 0)
    return (
        str(snapshot.get("name")),
        time.strftime("%Y-%m-%d %H:%M:%S", at),
        format_size(size) if isinstance(size, int | float) else "-",
        "".join(
            character for character in str(snapshot.get("description")) if character.isprintable()
        ),
    )


def _also_no_directory(error: BoincvmError, arguments: argparse.Namespace) -> BoincvmError:
    """Extend the hint of `error` if the target may be the mistyped name of a job's directory."""
    if arguments.snapshot_verb not in ("take", "ls") or arguments.vm or arguments.controller:
        return error
    hint = f"{error.hint}; a job's directory is given as ./{arguments.target}"
    return BoincvmError(error.message, hint=hint, exit_code=error.exit_code)
