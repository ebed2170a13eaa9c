"""Installs a workunit's packages in the guest before a task and removes them afterwards."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from boincvm.errors import ProgramStartError
from boincvm.guestlink.put import put_tree
from boincvm.machine.guest_commands import LONG, run_in_guest
from boincvm.machine.session import Session

SCRIPT = "boincvm_guest_package.py"
_DIRECTORY = PurePosixPath(".boincvm-packages")


class GuestPackages:
    """The packages `files` of the host, in the order of their installation."""

    def __init__(
        self, session: Session, files: tuple[Path, ...], log: Callable[[str], None]
    ) -> None:
        """Take the packages; `log` is called with a line for each one that is installed."""
        self._session = session
        self._files = files
        self._log = log

    async def install(self) -> None:
        """Install all packages. Raises ProgramStartError if one cannot be installed, GuestError."""
        if not self._files:
            return
        from boincvm.image.agent_files import guest_directory  # few tasks have packages

        await self._put(guest_directory() / SCRIPT, SCRIPT)
        for number, path in enumerate(self._files):
            name = f"{number}-{path.name}"
            await self._put(path, name)
            self._log(f"installing {path.name} in the guest")
            await self._run("install", f"{_DIRECTORY / name}", self._record(number))

    async def remove(self) -> None:
        """Remove all packages in reverse order. Raises ProgramStartError, GuestError."""
        for number in reversed(range(len(self._files))):
            await self._run("remove", self._record(number))

    def _record(self, number: int) -> str:
        return f"{_DIRECTORY}/{number}.record"

    async def _put(self, path: Path, name: str) -> None:
        await put_tree(
            self._session.link,
            self._session.transfer_disk,
            Path(path.name),
            _DIRECTORY / name,
            directory=path.parent,
        )

    async def _run(self, *arguments: str) -> None:
        command = ["python3", "-I", "-S", str(_DIRECTORY / SCRIPT), *arguments]
        output = await run_in_guest(self._session, command, within=LONG)
        if output is not None:
            raise ProgramStartError(
                f"the guest could not {arguments[0]} a package: {output}",
                hint="it must be a .deb or a tarball, and fit in the machine's disk",
            )
