"""Files of the controller's host, to and from machines, as an old client knows it."""

import os
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from io import FileIO
from pathlib import Path, PurePosixPath

from boincvm.controller.controller import Controller
from boincvm.errors import HostError, OutputFileError, UsageError
from boincvm.file_digest import open_regular

_PIECE = 1 << 18


class FileMethods:
    """Their names are in xml_rpc_methods.py."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    async def copy_to(self, vm: str, local: str, remote: str | None = None) -> object:
        """A file of this host goes to the machine, by default under its own name."""
        try:
            file = open_regular(Path(local))
        except (OSError, ValueError) as error:
            raise UsageError(f"{local[:200]!r} cannot be read: {error}") from error
        with file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            outcomes = await self._controller.files.put(
                vm, remote or Path(local).name, _content(file), is_tree=False, mode=mode & 0o777
            )
        told = {name: _outcome(one) for name, one in outcomes.items()}
        if set(told) != {vm}:
            return told
        if told[vm] is not True:
            raise HostError(str(told[vm]))
        return True

    async def copy_from(self, vm: str, remote: str, local: str | None = None) -> object:
        """A file of the machine's comes to this host: `local` is a file or a directory; by
        default the one for temporary files."""
        target = Path(local or tempfile.gettempdir())
        if target.is_dir():
            target /= PurePosixPath(remote).name
        gotten = await self._controller.files.get(vm, remote)
        async with aclosing(gotten.chunks) as chunks:
            if gotten.is_tree:
                raise UsageError(f"{remote[:200]!r} is a directory", hint="boincvm cp copies trees")
            await _write(target, chunks, gotten.mode & 0o777)
        return True


async def _write(target: Path, chunks: AsyncIterator[bytes], mode: int) -> None:
    part = target.with_name(f".{target.name[:200]}.{os.urandom(4).hex()}.part")
    try:
        with part.open("xb") as file:
            async for piece in chunks:
                file.write(piece)
        part.chmod(mode)
        part.replace(target)
    except OSError as error:
        raise OutputFileError(f"{str(target)[:200]!r} cannot be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def _outcome(told: dict[str, object]) -> object:
    error = told.get("error")
    return error.get("message", "it failed") if isinstance(error, dict) else True


async def _content(file: FileIO) -> AsyncIterator[bytes]:
    while data := file.read(_PIECE):
        yield data
