"""Copies a job's files into a machine and back."""

from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from boincvm.errors import OutputFileError
from boincvm.guestlink.display import Progress, no_progress, shown
from boincvm.guestlink.get import OutputMissingError, all_of, check_destination, get_tree
from boincvm.guestlink.put import check_source, put_tree
from boincvm.job.model import InputFile, OutputFile
from boincvm.machine.output_destinations import Found, distinct
from boincvm.machine.session import Session

MISSING_HINT = (
    "the program did not make such a file: look at what it has printed; the path starts in the"
    " job's directory"
)
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
        if not output.is_pattern:
            root, path = _beneath(directory, output.destination)
            check_destination(root, path, replaces=output.replaces)


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
            session.transfer_disk,
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
    taken: Collection[PurePosixPath] = (),
) -> OutputFileError | None:
    """Bring back all `outputs` that exist, each of at most `maximum_bytes`.

    `taken`: destinations that nothing that matches a pattern may have. Returns an error that names
    all others, or None. Raises HostDiskFullError, GuestError.
    """
    missing: list[OutputFileError] = []
    found: list[Found] = []
    for output in outputs:
        if not output.is_pattern:
            found.append(Found(output, output))
            continue
        from boincvm.machine.output_patterns import matching_outputs  # few outputs are patterns

        try:
            matches = await matching_outputs(session, output, taken)
        except OutputFileError as error:
            missing.append(error)
        else:
            found += (Found(output, item) for item in matches)
    items, clashes = distinct(found)
    missing += clashes
    for item in items:
        root, destination = _beneath(directory, item.destination)
        try:
            await get_tree(
                session.link,
                session.transfer_disk,
                item.source,
                destination,
                directory=root,
                maximum_bytes=maximum_bytes,
                progress=progress,
                name=_name(item.source, destination),
                replaces=item.replaces,
            )
        except OutputFileError as error:
            if isinstance(error, OutputMissingError):
                error.hint = MISSING_HINT
            missing.append(error)
    return all_of(missing) if missing else None


def _name(source: PurePosixPath, destination: PurePosixPath) -> str:
    """Return what errors call an output: by its name in the guest, and here if that differs."""
    if source == destination:
        return f"output {shown(source)}"
    return f"output {shown(source)}, here {shown(destination)}"


def _beneath(directory: Path, path: PurePosixPath) -> tuple[Path, PurePosixPath]:
    """Return the directory from which `path` is reached without links, and the path from there."""
    there = Path(path)  # with a drive on Windows
    if there.is_absolute():  # it has been resolved, and contains no links
        return there.parent, PurePosixPath(there.name)
    return directory, path
