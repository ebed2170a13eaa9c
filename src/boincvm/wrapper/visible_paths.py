"""How a program that runs on the host, and whoever reads what it says, sees the job's files.

As under BOINC's own wrapper: by their names in the slot, and as `../../projects/X/…` in the
project's directory. Where a volunteer's BOINC lies concerns nobody, and results of different
hosts must be the same, also those of a program that prints its arguments.
"""

import os
from pathlib import Path


class VisiblePaths:
    """The paths of a slot and of its project, which is the slot itself without a client."""

    def __init__(self, slot: Path, project: Path) -> None:
        self._slot = os.path.realpath(slot)
        self._project = os.path.realpath(project)
        usual = os.path.join("..", "..", "projects", project.name)  # noqa: PTH118 - a text
        is_there = os.path.realpath(slot / usual) == self._project
        self.project = usual if is_there else os.path.relpath(self._project, self._slot)
        """The project's directory, from the slot."""
        self._roots = (
            (str(slot), ""),
            (self._slot, ""),
            (str(project), self.project),
            (self._project, self.project),
        )

    def of(self, path: Path, directory: Path) -> str:
        """Return `path` as a program in `directory` may be told of it. One that is neither the
        slot's nor the project's, a program of the system's, stays as it is."""
        for root, seen in self._roots:
            if path.is_relative_to(root):
                return self._from(os.path.join(seen, path.relative_to(root)), directory)  # noqa: PTH118
        return str(path)

    def _from(self, seen: str, directory: Path) -> str:
        """What is `seen` from the slot, from `directory`."""
        where = os.path.realpath(directory)
        if where == self._slot:
            return seen
        if Path(where).is_relative_to(self._slot):
            depth = len(Path(where).relative_to(self._slot).parts)
            return os.path.join(*[".."] * depth, seen)  # noqa: PTH118
        parent, name = os.path.split(os.path.join(self._slot, seen))  # noqa: PTH118
        # A link at the end keeps its name, by which a program may know what it is to be.
        return os.path.relpath(os.path.join(os.path.realpath(parent), name), where)  # noqa: PTH118
