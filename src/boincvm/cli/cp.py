"""`boincvm cp`: copies files and trees to machines of the controller and from them."""

import argparse
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from boincvm.cli import controller_options
from boincvm.errors import BoincvmError, OutputFileError, UsageError, host_error
from boincvm.host.file_names import is_storable
from boincvm.standard_error import write_line

if TYPE_CHECKING:
    from boincvm.client.client import Client, Table
    from boincvm.client.copy import Progress

_EPILOG = """\
One side names a machine and a path in it: web.1:data/in.txt is beneath its work directory,
web.1:/etc/hosts anywhere. A selector may name several machines; what comes from them goes to a
directory for each. A directory is copied with everything in it. A Chirp file server, at
chirp://HOST[:PORT]/PATH, can be named in place of the machine.

examples:
  boincvm cp input.txt web.1:input.txt
  boincvm cp data 'web.*:data'
  boincvm cp web.1:results results
  boincvm cp 'web.*:results' all               to all/web.1/results, all/web.2/results, ...
  boincvm cp results chirp://store.site/2026/results
"""
_CHIRP = "chirp://"
_MOST_AT_ONCE = 8
"""Machines that something is fetched from at the same time."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    controller_options.add_common(parser)
    parser.epilog = _EPILOG
    for name in ("source", "destination"):
        side = parser.add_argument(name, metavar=name.upper())
        controller_options.completed(side, controller_options.FILES_OR_MACHINES)


def run(arguments: argparse.Namespace) -> int:
    """Copy the files. Raises BoincvmError."""
    if "-" in (arguments.source, arguments.destination):
        raise UsageError(
            "cp copies files and directories, not standard input or output",
            hint="pipe through boincvm exec, with cat in the machine; a file named - is ./-",
        )
    if any(path.startswith(_CHIRP) for path in (arguments.source, arguments.destination)):
        return _by_chirp(arguments)
    there, here = _side(arguments.destination), _side(arguments.source)
    if (there is None) == (here is None):
        raise UsageError(
            "one of the two sides must be in a machine",
            hint="like web.1:data; a local path with a colon in it is written ./a:b",
        )
    if there is not None:
        return _put(arguments, Path(arguments.source), *there)
    assert here is not None  # noqa: S101 - for the type checker
    return _get(arguments, *here, Path(arguments.destination))


def _side(text: str) -> tuple[str, str] | None:
    """Split `text` into machines and a path; None for a local path."""
    vms, sign, path = text.partition(":")
    return (vms, path) if sign and vms and "/" not in vms else None


def _put(arguments: argparse.Namespace, source: Path, vms: str, path: str) -> int:
    from boincvm.client import copy as client_copy

    client = controller_options.client_of(arguments)
    name = path if path and not path.endswith("/") else path + source.name
    with controller_options.waiting(f"copying {source}") as progress:
        answer = client_copy.put_path(client, vms, name, source, progress)
    outcomes = answer.get("outcomes")
    return controller_options.show_outcomes(
        outcomes if isinstance(outcomes, dict) else {},  # type: ignore[arg-type]
        as_json=arguments.json,
        describe=lambda _outcome: f"has {name}",
    )


def _get(arguments: argparse.Namespace, vm: str, path: str, destination: Path) -> int:
    client = controller_options.client_of(arguments)
    if not _is_id(vm):
        return _get_from_each(arguments, client, vm, path, destination)
    with controller_options.waiting(f"copying {vm}:{path}") as progress:
        _fetch(client, vm, path, destination, progress)
    if arguments.json:
        controller_options.print_document({"vm": vm, "path": path, "destination": str(destination)})
    return 0


def _is_id(vms: str) -> bool:
    """Tell whether a selector can mean one machine only."""
    return vms != "all" and not set(vms) & set("*,=!<>")


def _get_from_each(
    arguments: argparse.Namespace, client: "Client", vms: str, path: str, destination: Path
) -> int:
    """Copy from every machine that can answer, each to a directory of its own."""
    listed = controller_options.tables_in(client.call("list", vms=vms), "vms")
    names = [str(vm["id"]) for vm in listed if vm["presence"] == "present"]
    if not names:
        raise UsageError(
            f"no machine that {vms[:80]!r} matches can answer", hint="boincvm ls shows them"
        )

    def fetch(vm: str) -> "dict[str, Table]":
        if "/" in vm or not is_storable(vm):  # as a guest of another broker may call itself
            refused = OutputFileError(f"no directory can have the name {vm!r}")
            return {vm: {"error": {**refused.table()}}}
        try:
            own = destination / vm
            own.mkdir(parents=True, exist_ok=True)
            _fetch(client, vm, path, own, lambda _done, _size: None)
        except OSError as error:
            failure = host_error(f"{destination} cannot be written", error, OutputFileError)
            return {vm: {"error": {**failure.table()}}}
        except BoincvmError as error:
            return {vm: {"error": {**error.table()}}}
        return {vm: {"destination": str(own)}}

    outcomes: dict[str, Table] = {}
    with controller_options.waiting(f"copying {vms}:{path}") as progress:
        for at in range(0, len(names), _MOST_AT_ONCE):
            outcomes.update(controller_options.ask_each(names[at : at + _MOST_AT_ONCE], fetch))
            progress(len(outcomes), len(names))
    return controller_options.show_outcomes(
        outcomes, as_json=arguments.json, describe=lambda outcome: f"is in {outcome['destination']}"
    )


def _fetch(client: "Client", vm: str, path: str, destination: Path, progress: "Progress") -> None:
    """Copy a file or tree to `destination`, or into it where it is a directory.

    Raises BoincvmError.
    """
    from boincvm.client import copy as client_copy

    if destination.is_dir():
        name = PurePosixPath(path).name
        if not is_storable(name):
            raise OutputFileError(
                f"{name!r} is no name for a file of this host", hint="name a file"
            )
        destination = destination / name
    if destination.is_dir():
        raise OutputFileError(f"{destination} already exists", hint="choose another destination")
    client_copy.get_path(client, vm, path, destination, progress)


def _by_chirp(arguments: argparse.Namespace) -> int:
    import asyncio

    from boincvm.chirp.transport import chirp_get, chirp_put

    source, destination = arguments.source, arguments.destination
    is_put = destination.startswith(_CHIRP)
    local = source if is_put else destination
    if local.startswith(_CHIRP) or _side(local) is not None:
        raise UsageError(
            "one side of a copy with Chirp must be on this host",
            hint="copy in two steps; a local path with a colon in it is written ./a:b",
        )
    with controller_options.waiting(f"copying {source}"):
        if is_put:
            copied = asyncio.run(chirp_put(Path(source), destination))
        else:
            path = Path(destination)
            path = path / Path(source).name if path.is_dir() else path
            copied = asyncio.run(chirp_get(source, path))
    if arguments.json:
        controller_options.print_document(copied._asdict())
    for name in () if arguments.json else copied.left_out:
        write_line(f"left out: {name!r}, which is neither a file nor a directory")
    return 0
