"""Outputs that a job names by a pattern: what matches it in the guest."""

from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from boincvm import tree_entries
from boincvm.byte_text import decoded, encoded
from boincvm.errors import OutputFileError
from boincvm.guestlink.display import shown
from boincvm.job.model import OutputFile
from boincvm.machine.guest_commands import GuestCommandLimitError, output_in_guest
from boincvm.machine.session import Session
from boincvm.tree_entries import UnsafePathError

# A file whose own name looks like a pattern is meant by it. Without IFS names keep their spaces.
# Some shells expand `.*` to "." and "..", too.
LIST_COMMAND = """\
IFS=
if [ -e "$1" ] || [ -L "$1" ]; then printf '%s\\0' "$1"; exit; fi
for name in $1; do
    case $name in . | .. | */. | */..) continue ;; esac
    if [ -e "$name" ] || [ -L "$name" ]; then printf '%s\\0' "$name"; fi
done
"""
MOST_BYTES = 1 << 20
"""Bytes of all names that match."""
LIST_LIMIT = 120.0
"""Seconds; the guest's shell may be a program of the job, which never answers."""


async def matching_outputs(
    session: Session, output: OutputFile, taken: Collection[PurePosixPath] = ()
) -> list[OutputFile]:
    """Return the files and directories that match the pattern of `output`, sorted.

    `taken`: destinations that none of them may have. Raises OutputFileError if there are none, too
    many or unsafe ones, ProgramStartError, GuestError.
    """
    name = f"output {shown(output.source)}"
    command = ["sh", "-c", LIST_COMMAND, "sh", str(output.source)]
    try:
        code, listed = await output_in_guest(session, command, MOST_BYTES, within=LIST_LIMIT)
    except GuestCommandLimitError as error:
        raise OutputFileError(
            f"{name}: the guest did not list what matches it within {LIST_LIMIT:g} s",
            hint="name the directory that they are in",
        ) from error
    return listed_outputs(output, code, listed, taken)


def listed_outputs(
    output: OutputFile, code: int | None, listed: bytes, taken: Collection[PurePosixPath]
) -> list[OutputFile]:
    """Return what matches, from the exit code and the output of LIST_COMMAND in a guest.

    Raises OutputFileError, like `matching_outputs`.
    """
    name = f"output {shown(output.source)}"
    if code != 0 or len(listed) == MOST_BYTES:
        raise OutputFileError(
            f"{name}: too many names match it, or the guest cannot list them",
            hint="name the directory that they are in",
        )
    found: dict[PurePosixPath, OutputFile] = {}
    for path in sorted(filter(None, listed.split(b"\0"))):
        try:
            tree_entries.components(path)
        except UnsafePathError as error:
            raise OutputFileError(f"{name}: {error}") from error
        if not _is_match(path, encoded(str(output.source))):
            raise OutputFileError(
                f"{name}: the guest lists {tree_entries.shown(path)}, which does not match it"
            )
        source = PurePosixPath(decoded(path))
        destination = output.destination / (source if output.keeps_path else source.name)
        if destination in taken:
            raise OutputFileError(
                f"{name}: {shown(destination)} has what the program prints",
                hint="let the program write to a file of another name",
            )
        if destination in found:
            raise OutputFileError(
                f"{name}: two matches would be {shown(destination)}",
                hint="leave the place out, and each keeps its path",
            )
        found[destination] = OutputFile(source, destination, replaces=output.replaces)
    if not found:
        raise OutputFileError(
            f"{name}: nothing matches it", hint="the program did not make such a file"
        )
    return list(found.values())


def _is_match(path: bytes, pattern: bytes) -> bool:
    """Tell whether a shell would expand `pattern` to `path`.

    The guest's shell says so, but a program may have replaced it, and only what the user has named
    may be written on the host: not `.ssh/authorized_keys` for `*.txt`.
    """
    names, parts = path.split(b"/"), pattern.split(b"/")
    return path == pattern or (
        len(names) == len(parts)
        and all(
            fnmatchcase(name, part.replace(b"[^", b"[!"))
            and (part.startswith(b".") or not name.startswith(b"."))
            for name, part in zip(names, parts, strict=True)
        )
    )
