"""The root of files from the bus: the work directory of a machine of this host."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Protocol

from boincvm.errors import BoincvmError, InputFileError, OutputFileError, UsageError
from boincvm.guestlink.display import shown
from boincvm.guestlink.get import get_tree
from boincvm.guestlink.put import put_tree
from boincvm.machine.guest_commands import LONG, run_in_guest
from boincvm.machine.session import Session
from boincvm.tar_trees import MOST_BYTES

SessionProvider = Callable[[], Session | None]
"""Returns the machine's current session, or None while it is off or saved. Its `watch` must be
running, so that operations end when the machine does."""


class FileRoot(Protocol):
    """Where a guest's files are read and written. All methods raise BoincvmError."""

    def check(self, path: PurePosixPath, /) -> None:
        """Check that it can be used now, for that path."""

    async def put(self, source: Path, destination: PurePosixPath, mode: int) -> None:
        """Put the file or tree `source` at `destination`, atomically, replacing an existing file.

        `mode` applies to a file. `destination`: see `guest_file`.
        """

    async def get(self, source: PurePosixPath, destination: Path) -> None:
        """Copy `source`, see `guest_file`, to `destination`, which must not exist yet."""


class MachineFileRoot:
    """A `FileRoot` in whichever machine the session provider returns."""

    def __init__(self, provider: SessionProvider) -> None:
        self._provider = provider

    def _session(self) -> Session:
        session = self._provider()
        if session is None:
            raise UsageError(
                "the machine is not running, so no files can be copied to or from it",
                hint="start it, then send them again",
            )
        return session

    def check(self, _path: PurePosixPath, /) -> None:
        """Check that the machine can be used now, for any path. Raises UsageError."""
        self._session()

    async def put(self, source: Path, destination: PurePosixPath, mode: int) -> None:
        """Put a file or tree into the machine.

        Raises InputFileError, LimitError, GuestError, UsageError.
        """
        session, part = self._session(), _part()
        if not destination.is_absolute():  # so that the file system is the same
            part = destination.with_name(part.name)
        try:
            if destination.is_absolute():
                await self._must(session, destination, "mkdir", "-p", "--", str(destination.parent))
            await session.guard(
                put_tree(
                    session.link,
                    session.transfer_disk,
                    Path(source.name),
                    part,
                    directory=source.parent,
                )
            )
            if not source.is_dir() and not mode & 0o400:  # our copy had to be readable
                await self._must(session, destination, "chmod", f"{mode:o}", "--", str(part))
            await self._must(
                session, destination, "mv", "-f", "-T", "--", str(part), str(destination)
            )
        except (BoincvmError, asyncio.CancelledError) as error:
            await self._remove(session, part, error)
            raise

    @staticmethod
    async def _must(session: Session, destination: PurePosixPath, *command: str) -> None:
        complaint = await session.guard(run_in_guest(session, command))
        if complaint is not None:
            raise InputFileError(
                f"{shown(destination)} cannot be copied to the guest: {complaint}",
                hint="does a directory have that name?",
            )

    @staticmethod
    async def _remove(session: Session, part: PurePosixPath, why: BaseException) -> None:
        """Remove what was copied; if the machine has ended, do nothing and keep the first error."""
        if session.link.failure.done():
            return
        try:
            async with asyncio.timeout(10):
                await session.guard(run_in_guest(session, ("rm", "-rf", "--", str(part))))
        except (BoincvmError, TimeoutError) as error:
            why.add_note(f"and the part that arrived is left in the guest: {error}")

    async def get(self, source: PurePosixPath, destination: Path) -> None:
        """Copy a file or tree from the machine.

        Raises OutputFileError, HostDiskFullError, GuestError, UsageError.
        """
        session = self._session()
        if not source.is_absolute():
            await self._get(session, source, destination, source)
            return
        # The agent reads its work directory only, so that is where a copy goes first.
        part = _part()
        try:
            complaint = await session.guard(
                run_in_guest(
                    session, ("cp", "-a", "-x", "-T", "--", str(source), str(part)), within=LONG
                )
            )
            if complaint is not None:
                raise OutputFileError(f"{shown(source)} in the guest: {complaint}")
            await self._get(session, part, destination, source)
        except (BoincvmError, asyncio.CancelledError) as error:
            await self._remove(session, part, error)
            raise
        complaint = await session.guard(run_in_guest(session, ("rm", "-rf", "--", str(part))))
        if complaint is not None:
            raise OutputFileError(f"a copy of {shown(source)} is left in the guest: {complaint}")

    @staticmethod
    async def _get(
        session: Session, source: PurePosixPath, destination: Path, name: PurePosixPath
    ) -> None:
        """Copy `source`, beneath the work directory; errors call it `name`."""
        await session.guard(
            get_tree(
                session.link,
                session.transfer_disk,
                source,
                PurePosixPath(destination.name),
                directory=destination.parent,
                maximum_bytes=MOST_BYTES,
                name=f"{shown(name)} in the guest",
            )
        )


def _part() -> PurePosixPath:
    """Return a new name in the work directory for what is being copied."""
    return PurePosixPath(f".{os.urandom(8).hex()}.boincvm-part")
