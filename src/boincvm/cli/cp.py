"""`boincvm cp`: copies files and trees to machines of the controller and from them."""

import argparse
import os
import stat
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO

from boincvm.cli import controller_options
from boincvm.errors import InputFileError, OutputFileError, UsageError, host_error
from boincvm.host.filetree import set_time
from boincvm.standard_error import write_line
from boincvm.tree_entries import UnsafePathError, clamp_time

_EPILOG = """\
One side names a machine and a path beneath its work directory, like web.1:data/in.txt; to put
something, several machines can be meant. A directory is copied with all that is in it. A file
server of Chirp, at chirp://HOST[:PORT]/PATH, can stand in place of the machine.

examples:
  boincvm cp input.txt web.1:input.txt
  boincvm cp data 'web.*:data'
  boincvm cp web.1:results results
  boincvm cp results chirp://store.site/2026/results
"""
_CHIRP = "chirp://"


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
    try:
        is_tree = source.is_dir() and not source.is_symlink()
        status = source.stat()
        mode = stat.S_IMODE(status.st_mode) & 0o777
        with (
            _content(source, is_tree=is_tree) as file,
            controller_options.waiting(f"copying {source}") as progress,
        ):
            size = os.fstat(file.fileno()).st_size
            answer = client_copy.put(
                client,
                vms,
                name,
                file,
                size,
                is_tree=is_tree,
                mode=mode,
                modified=clamp_time(status.st_mtime_ns),
                progress=progress,
            )
    except OSError as error:
        raise InputFileError(f"{source} cannot be read: {error.strerror}") from error
    except UnsafePathError as error:
        raise InputFileError(f"{source}: {error}") from error
    outcomes = answer.get("outcomes")
    return controller_options.show_outcomes(
        outcomes if isinstance(outcomes, dict) else {},  # type: ignore[arg-type]
        as_json=arguments.json,
        describe=lambda _one: f"has {name}",
    )


def _content(source: Path, *, is_tree: bool) -> BinaryIO:
    """Open the file, or the tree as a tar stream in an unnamed file."""
    if not is_tree:
        return source.open("rb")
    from boincvm.tar_trees import pack

    with tempfile.TemporaryDirectory() as temporary:
        packed = Path(temporary) / "tree"
        pack(source.absolute().parent, source.absolute().name, packed, threading.Event())
        return packed.open("rb")


def _get(arguments: argparse.Namespace, vm: str, path: str, destination: Path) -> int:
    from boincvm.client import copy as client_copy

    client = controller_options.client_of(arguments)
    if destination.is_dir():
        destination = destination / Path(path).name
    if destination.is_dir():
        raise OutputFileError(f"{destination} already exists", hint="choose another destination")
    parent = destination.absolute().parent
    try:
        with (
            tempfile.TemporaryDirectory(dir=parent, prefix=".boincvm-") as temporary,
            controller_options.waiting(f"copying {vm}:{path}") as progress,
        ):
            part = Path(temporary) / "content"
            with part.open("xb") as file:
                gotten = client_copy.fetch(client, vm, path, file, progress)
            if gotten.is_tree:
                from boincvm.tar_trees import unpack

                unpack(part, Path(temporary), "tree", threading.Event())
                part = Path(temporary) / "tree"
            part.chmod(gotten.mode & 0o777)
            set_time(os.fsencode(part), gotten.modified)
            part.rename(destination)
    except OSError as error:
        raise host_error(f"{destination} cannot be written", error, OutputFileError) from error
    except UnsafePathError as error:
        raise OutputFileError(f"{vm}:{path} is refused: {error}") from error
    if arguments.json:
        controller_options.print_document({"vm": vm, "path": path, "destination": str(destination)})
    return 0


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
