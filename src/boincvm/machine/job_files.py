"""Copies a job's files into a machine and back."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from boincvm.errors import OutputFileError
from boincvm.guestlink.display import Progress, no_progress
from boincvm.guestlink.get import all_of, check_destination, get_tree
from boincvm.guestlink.put import check_source, put_tree
from boincvm.job.model import InputFile, OutputFile
from boincvm.machine.session import Session

MAXIMUM_OUTPUT = 1 << 40
"""Bytes allowed for one output if the job does not limit the disk."""


def check_files(
    directory: Path, inputs: Sequence[InputFile], outputs: Sequence[OutputFile]
) -> None:
    """Check that all `inputs` can be sent and all `outputs` may be written.

    Called early, so that nobody waits for a machine in vain. Relative paths start from `directory`.
    Raises InputFileError, OutputFileError.
    """
    for item in inputs:
        check_source(directory, item.source)
    for output in outputs:
        check_destination(*_beneath(directory, output.destination))


async def copy_in(
    session: Session,
    directory: Path,
    inputs: Sequence[InputFile],
    progress: Progress = no_progress,
) -> None:
    """Send `inputs` to the guest. Raises InputFileError, LimitError, GuestError."""
    for item in inputs:
        await put_tree(
            session.link,
            session.window,
            item.source,
            item.destination,
            directory=directory,
            progress=progress,
        )


async def copy_out(
    session: Session,
    directory: Path,
    outputs: Sequence[OutputFile],
    *,
    maximum_bytes: int = MAXIMUM_OUTPUT,
    progress: Progress = no_progress,
) -> OutputFileError | None:
    """Bring back all `outputs` that exist, each of at most `maximum_bytes`.

    Returns an error that names all others, or None. Raises HostDiskFullError, GuestError.
    """
    missing: list[OutputFileError] = []
    for item in outputs:
        root, destination = _beneath(directory, item.destination)
        try:
            await get_tree(
                session.link,
                session.window,
                item.source,
                destination,
                directory=root,
                maximum_bytes=maximum_bytes,
                progress=progress,
            )
        except OutputFileError as error:
            missing.append(error)
    return all_of(missing) if missing else None


def _beneath(directory: Path, path: PurePosixPath) -> tuple[Path, PurePosixPath]:
    """Return the directory from which `path` is reached without links, and the path from there."""
    if path.is_absolute():  # it has been resolved, and contains no links
        return Path(path.parent), PurePosixPath(path.name)
    return directory, path
