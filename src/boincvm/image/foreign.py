"""Run a program of Debian's on this computer, as the current user, with its own libraries."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from boincvm.image.tools import run_tool
from boincvm.image.tree import Tree

PACKAGES = ("busybox-static", "openssl", "python3")
"""The packages with the programs that a build runs on this computer."""
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib")
_LOADER = "usr/lib64/ld-linux-x86-64.so.2"


def run(
    programs: Tree,
    program: str,
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
) -> bytes:
    """Run `program` of the tree's /usr/bin and return its output. Raises ToolError.

    The tree is for this computer's architecture, which that of an image need not be.
    """
    root = programs.directory
    libraries = ":".join(str(root / folder) for folder in _LIBRARIES)
    path = root / "usr/bin" / program
    command: Sequence[str | Path] = (
        *(root / _LOADER, "--library-path", libraries, "--argv0", path, path),
        *arguments,
    )
    return run_tool(command, environment=environment)
