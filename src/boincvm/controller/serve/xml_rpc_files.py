"""The XML-RPC methods that copy files between the controller's host and machines."""

import os
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from io import FileIO
from pathlib import Path, PurePosixPath

from boincvm.controller.controller import Controller
from boincvm.errors import HostError, OutputFileError, UsageError, host_error
from boincvm.host.atomic_files import replacement
from boincvm.host.files import open_regular
from boincvm.host.filetree import set_time

_PIECE = 1 << 18
_ALL = Path("/")


class FileMethods:
    """Methods for files; their XML-RPC names are in xml_rpc_methods.py.

    `shared`: the directory in which the host's files must be; None allows no files.
    """

    def __init__(self, controller: Controller, shared: Path | None) -> None:
        self._controller = controller
        self._shared = shared

    async def copy_to(self, vm: str, local: str, remote: str | None = None) -> object:
        """Copy a file of this host to the machine, by default under the same name."""
        path = self._host_path(local)
        try:
            file = open_regular(path)
        except (OSError, ValueError) as error:
            raise UsageError(f"{local[:200]!r} cannot be read: {error}") from error
        with file:
            status = os.fstat(file.fileno())
            outcomes = await self._controller.files.put(
                vm,
                remote or path.name,
                _content(file),
                is_tree=False,
                mode=stat.S_IMODE(status.st_mode) & 0o777,
                modified=status.st_mtime_ns,
            )
        results = {name: _outcome(outcome) for name, outcome in outcomes.items()}
        if set(results) != {vm}:
            return results
        if results[vm] is not True:
            raise HostError(str(results[vm]))
        return True

    async def copy_from(self, vm: str, remote: str, local: str | None = None) -> object:
        """Copy a file of the machine to this host.

        `local`: a file or a directory; by default the shared directory, or the directory for
        temporary files if everything is shared.
        """
        target = self._host_path(local or (tempfile.gettempdir() if self._shared == _ALL else "."))
        if target.is_dir():
            target /= PurePosixPath(remote).name
        gotten = await self._controller.files.get(vm, remote)
        async with aclosing(gotten.chunks) as chunks:
            if gotten.is_tree:
                raise UsageError(f"{remote[:200]!r} is a directory", hint="boincvm cp copies trees")
            await _write(target, chunks, gotten.mode & 0o777, gotten.modified)
        return True

    def _host_path(self, text: str) -> Path:
        """Return a path with links resolved. Raises UsageError if it is not shared."""
        if self._shared is None:
            raise UsageError(
                "files of the controller's host cannot be named over TCP",
                hint="start it with --share DIRECTORY, use its UNIX socket, or PUT /api/files",
            )
        try:
            path = Path(self._shared, text).resolve()
            is_shared = path.is_relative_to(self._shared.resolve())
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(f"{text[:200]!r} is not a path: {error}") from error
        if not is_shared:
            raise UsageError(
                f"{text[:200]!r} is not in the shared directory",
                hint="see the controller's --share; paths may be relative to it",
            )
        return path


async def _write(
    target: Path, chunks: AsyncIterator[bytes], mode: int, modified: int | None
) -> None:
    try:
        with replacement(target, is_unique=True, is_synced=False) as part:
            with part.open("xb") as file:
                async for piece in chunks:
                    file.write(piece)
            part.chmod(mode)
            set_time(os.fsencode(part), modified)
    except OSError as error:
        raise host_error(
            f"{str(target)[:200]!r} cannot be written", error, OutputFileError
        ) from error


def _outcome(outcome: dict[str, object]) -> object:
    error = outcome.get("error")
    return error.get("message", "it failed") if isinstance(error, dict) else True


async def _content(file: FileIO) -> AsyncIterator[bytes]:
    while data := file.read(_PIECE):
        yield data
