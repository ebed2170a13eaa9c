"""The paths by which a program on the host, and readers of its output, see the job's files.

As with BOINC's own wrapper these are names in the slot, and `../../projects/X/…` for the project's
directory. Where a volunteer's BOINC is installed is nobody's business, and results of different
hosts must be the same, even those of a program that prints its arguments.
"""

import os
from pathlib import Path


class VisiblePaths:
    """The visible paths of a slot and its project; without a client, the project is the slot."""

    def __init__(self, slot: Path, project: Path) -> None:
        self._slot = os.path.realpath(slot)
        self._project = os.path.realpath(project)
        usual = os.path.join("..", "..", "projects", project.name)  # noqa: PTH118 - a text
        is_there = os.path.realpath(slot / usual) == self._project
        self.project = usual if is_there else os.path.relpath(self._project, self._slot)
        """The project's directory, relative to the slot."""
        self._roots = (
            (str(slot), ""),
            (self._slot, ""),
            (str(project), self.project),
            (self._project, self.project),
        )

    def of(self, path: Path, directory: Path) -> str:
        """Return `path` as a program in `directory` may see it.

        A path outside the slot and the project, such as a system program's, is returned unchanged.
        """
        for root, seen in self._roots:
            if path.is_relative_to(root):
                return self._from(os.path.join(seen, path.relative_to(root)), directory)  # noqa: PTH118
        return str(path)

    def _from(self, seen: str, directory: Path) -> str:
        """Return the path from `directory` to what is `seen` from the slot."""
        where = os.path.realpath(directory)
        if where == self._slot:
            return seen
        if Path(where).is_relative_to(self._slot):
            depth = len(Path(where).relative_to(self._slot).parts)
            return os.path.join(*[".."] * depth, seen)  # noqa: PTH118
        parent, name = os.path.split(os.path.join(self._slot, seen))  # noqa: PTH118
        # A link at the end keeps its name, which may tell a program what to do.
        return os.path.relpath(os.path.join(os.path.realpath(parent), name), where)  # noqa: PTH118
