"""Run a program of the image on this computer, as the current user, with the image's libraries."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from boincvm.image.tools import run_tool
from boincvm.image.tree import Tree

_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib")
_LOADER = "usr/lib64/ld-linux-x86-64.so.2"


def run(
    tree: Tree,
    program: str,
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
) -> bytes:
    """Run `program` of the tree's /usr/bin and return its output. Raises ToolError."""
    root = tree.directory
    libraries = ":".join(str(root / folder) for folder in _LIBRARIES)
    path = root / "usr/bin" / program
    command: Sequence[str | Path] = (
        *(root / _LOADER, "--library-path", libraries, "--argv0", path, path),
        *arguments,
    )
    return run_tool(command, environment=environment)
