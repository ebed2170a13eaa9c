"""Turns the file names that a job's author wrote into the two ends of a copy.

Only text is handled here. The transfer checks whether a path leads through a symbolic link when it
opens the file.
"""

import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from boincvm.errors import ProgramStartError
from boincvm.host.files import open_regular
from boincvm.job.model import InputFile, Job, MachineTask, OutputFile
from boincvm.job.values import UnexpectedValueError, describe, filled_text
from boincvm.portable_names import folded

_INTERPRETERS = {".py": "python3", ".sh": "sh", ".pl": "perl", ".R": "Rscript"}
"""Programs that read scripts, by the suffix of these."""


def relative_path(value: object) -> PurePosixPath:
    """Read a path beneath a directory: not absolute, without `..`, and not the directory itself."""
    text = filled_text(value)
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise UnexpectedValueError(
            describe(text), "a path beneath the job's directory: relative and without '..'"
        )
    return path


def input_file(text: str, directory: Path) -> InputFile:
    """Convert `text` to a file of the host, relative to `directory`, and its path in the guest.

    A path beneath `directory` is kept; a path that is absolute or leads out of it ends up in the
    job's directory under its last name. Raises UnexpectedValueError.
    """
    filled_text(text)
    expected = "a file or a directory with a name of its own"
    if PurePosixPath(text).name == "..":
        raise UnexpectedValueError(describe(text), expected)
    inside = os.path.normpath(text)
    if os.path.isabs(text) or PurePosixPath(inside).parts[:1] == ("..",):  # noqa: PTH117 - a text
        inside = PurePosixPath(os.path.normpath(directory.absolute() / text)).name
    if inside in ("", "."):
        raise UnexpectedValueError(describe(text), expected)
    return InputFile(source=Path(text), destination=PurePosixPath(inside))


def own_program_hint(job: Job[MachineTask], task: MachineTask) -> str:
    """Return a hint for a task whose program the guest does not have, if it may be the user's.

    The guest looks for a name without a slash among its own programs only. If it seems to be one of
    these, the hint is "".
    """
    name = task.argv[0]
    if "/" in name and not PurePosixPath(name).is_absolute():
        where = f"in {describe(str(task.directory))}, where the program starts"
        if task.directory is None:
            where = "in the job's directory"
        return f"an input, or an earlier program, must bring it; its path begins {where}"
    if "/" in name or task.directory is not None:
        return ""
    is_sent = any(item.destination == PurePosixPath(name) for item in job.inputs)
    if not is_sent and not (job.directory / name).is_file():
        return ""
    interpreter = _INTERPRETERS.get(PurePosixPath(name).suffix)
    if interpreter is not None and not _names_interpreter(job.directory / name):
        shown = shlex.quote(name)
        return (
            f"there is {describe(name)}, a script: hand it in, and name the program that reads it:"
            f" --input {shown} -- {interpreter} {shown}"
        )
    return f"there is {describe(f'./{name}')}, did you mean that? Without ./ it is the guest's own"


def _names_interpreter(path: Path) -> bool:
    """Tell whether a script begins with #!; if it cannot be read, that is not known."""
    try:
        with open_regular(path) as file:
            return file.read(2) == b"#!"
    except OSError:
        return True


def check_program(job: Job[MachineTask]) -> None:
    """Check that the first program can be in the guest, if it is named by a path like `./prog`.

    The directory in which it starts is empty but for the inputs. Raises ProgramStartError.
    """
    task = job.tasks[0]
    name, path = task.argv[0], PurePosixPath(task.argv[0])
    is_beneath = "/" in name and not path.is_absolute() and ".." not in path.parts
    if not is_beneath or task.directory is not None:
        return
    inputs = (*job.inputs, *task.inputs)
    is_sent = any(path.is_relative_to(item.destination) for item in inputs)
    if not is_sent and not os.path.lexists(job.directory / name):
        raise ProgramStartError(
            f"no such program: {describe(name)} does not exist in {job.directory}",
            hint="check its name and your directory, or send it from elsewhere with --input;"
            " the guest's own programs have no ./ before their names",
        )


def input_files(text: str, directory: Path) -> list[InputFile]:
    """Convert what the command line calls an input: a path, a pattern, or `.`.

    `.` is all that is in `directory`. A pattern that matches nothing is taken for a name. Raises
    UnexpectedValueError.
    """
    filled_text(text)
    if os.path.normpath(text) == ".":
        names = sorted(path.name for path in directory.iterdir())
    elif has_pattern(text) and not os.path.lexists(directory / text):
        import glob  # few inputs are patterns

        # Unlike `Path.glob` it skips hidden files, as shells do, and takes absolute patterns.
        names = sorted(glob.glob(text, root_dir=directory)) or [text]  # noqa: PTH207
    else:
        names = [text]
    return [input_file(name, directory) for name in names]


def has_pattern(text: str) -> bool:
    """Tell whether a shell would look for names that match `text`."""
    return any(sign in text for sign in "*?[")


def output_of_option(text: str, *, replaces: bool) -> OutputFile:
    """Convert what the command line calls an output: `NAME`, `NAME:DESTINATION` or a pattern.

    A DESTINATION that ends with a slash is a directory, as that of a pattern always is. Raises
    UnexpectedValueError.
    """
    name, separator, target = text.partition(":")
    if not (name and separator and target):
        name, target = text, ""
    source, is_pattern = relative_path(name), has_pattern(name)
    if not target:
        destination = PurePosixPath() if is_pattern else source
    else:
        destination = relative_path(target)
        if target.endswith("/") and not is_pattern:
            destination /= source.name
    return OutputFile(source, destination, is_pattern, not target, replaces)


def output_file(text: str) -> OutputFile:
    """Convert `text` to a file beneath the guest's directory and the same path on the host.

    Raises UnexpectedValueError.
    """
    path = relative_path(text)
    return OutputFile(source=path, destination=path)


def repeated_destination(destinations: Iterable[PurePosixPath]) -> int | None:
    """Return the index of the first destination that occurred before, or None."""
    seen: set[PurePosixPath] = set()
    for index, destination in enumerate(destinations):
        if destination in seen:
            return index
        seen.add(destination)
    return None


def first_around(destinations: Sequence[PurePosixPath]) -> int | None:
    """Return the index of the first directory in which an earlier one is, or None.

    It could not be written any more, or would replace that.
    """
    seen: set[PurePosixPath] = set()
    for index, destination in enumerate(destinations):
        if destination in seen:
            return index
        seen.update(destination.parents)
    return None


def overlapping(path: PurePosixPath, others: Iterable[PurePosixPath]) -> PurePosixPath | None:
    """Return the first of `others` that is `path`, in it, or has it in it, to any system."""
    parts = folded(path)
    for other in others:
        count = min(len(parts), len(found := folded(other)))
        if parts[:count] == found[:count]:
            return other
    return None


def unsent_files(job: Job[MachineTask]) -> list[str]:
    """Return arguments that name a host file which the job does not send: a common mistake."""
    sent = [item.destination for item in job.inputs]
    words = {word for task in job.tasks for word in task.argv[1:] if "\0" not in word}
    return sorted(
        word
        for word in words
        if not os.path.isabs(word)  # noqa: PTH117 - a text
        and (job.directory / word).is_file()
        and not any(PurePosixPath(os.path.normpath(word)).is_relative_to(path) for path in sent)
    )
