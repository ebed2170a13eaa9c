"""Whether the outputs that a job brings back would overwrite each other."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from boincvm.errors import OutputFileError
from boincvm.guestlink.display import shown
from boincvm.job.model import OutputFile


class Found(NamedTuple):
    """One file or directory to bring back."""

    asked: OutputFile
    """The output of the job that names it, perhaps by a pattern."""
    item: OutputFile


def distinct(found: Iterable[Found]) -> tuple[list[OutputFile], list[OutputFileError]]:
    """Return what can be brought back, and an error for each match that would overwrite another.

    What is found twice is brought back once. Two outputs that are both named, not
    matched, are as the job wants them: its reader has checked them.
    """
    placed: dict[PurePosixPath, Found] = {}
    items = list[OutputFile]()
    errors = list[OutputFileError]()
    for new in sorted(found, key=_outer_ones_first):
        destination = new.item.destination
        other = next(filter(None, map(placed.get, (destination, *destination.parents))), None)
        if other is not None and (new.asked.is_pattern or other.asked.is_pattern):
            if not _is_in(new.item, other.item):
                errors.append(_clash(new, other))
                continue
            if new.asked.is_pattern:  # one that is named has to be there
                continue
        placed[destination] = new
        items.append(new.item)
    return items, errors


def _outer_ones_first(found: Found) -> tuple[int, bool]:
    return len(found.item.destination.parts), found.asked.is_pattern


def _clash(new: Found, other: Found) -> OutputFileError:
    return OutputFileError(
        f"output {shown(new.asked.source)}: {shown(new.item.source)} would be"
        f" {shown(new.item.destination)}, but output {shown(other.asked.source)} puts"
        f" {shown(other.item.source)} at {shown(other.item.destination)}",
        hint="give one of them another destination: --output PATH:DESTINATION",
    )


def _is_in(new: OutputFile, around: OutputFile) -> bool:
    """Tell whether what is brought back as `around` has `new` where that would be."""
    inside = new.destination.relative_to(around.destination)
    return around.source / inside == new.source
