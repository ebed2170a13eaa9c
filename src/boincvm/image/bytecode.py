"""Compile Python modules with the image's own Python, which runs here for that purpose; or, for an
image of another architecture, with the same Python for this one: byte code is the same for all.

Debian compiles at installation, which does not happen in an image, and compiling at each start
takes seconds under emulation. The byte code depends on neither times nor this computer's paths (PEP
552, unchecked), so equal sources give equal images.
"""

import tempfile
from pathlib import Path

from boincvm.errors import ImageBuildError
from boincvm.image import foreign
from boincvm.image.tree import Tree

_COMPILE = """
import compileall, sys
is_whole = compileall.compile_dir(
    sys.argv[1], quiet=2, force=True, stripdir=sys.argv[2], prependdir=sys.argv[3],
    invalidation_mode=__import__("py_compile").PycInvalidationMode.UNCHECKED_HASH,
    legacy=sys.argv[4] == "beside", maxlevels=30)
sys.exit(sys.argv[4] == "beside" and not is_whole)
"""


def python_of(tree: Tree) -> str:
    """Return the name of the tree's Python, such as `python3.11`. Raises ImageBuildError."""
    found = sorted(
        (path.name for path in (tree.directory / "usr/bin").glob("python3.*")),
        key=lambda name: (len(name), name),
    )
    found = [name for name in found if name.removeprefix("python3.").isdigit()]
    if not found:
        raise ImageBuildError("the packages do not include Python, which the guest's agent needs")
    return found[0]


def compile_library(tree: Tree, programs: Tree) -> None:
    """Compile the standard library and Debian's Python packages with the Python of `programs`.

    A module that cannot be compiled (some exist to test that) stays a source. Raises
    ImageBuildError.
    """
    python = python_of(tree)
    for folder in (python, "python3"):
        if (tree.directory / "usr/lib" / folder).is_dir():
            _run(
                programs, python, tree.directory / "usr/lib" / folder, f"/usr/lib/{folder}", "cache"
            )


def compile_own_packages(tree: Tree, programs: Tree) -> None:
    """Compile what Debian's Python finds in /usr/local, like `compile_library`."""
    python = python_of(tree)
    folder = f"usr/local/lib/{python}"
    _run(programs, python, tree.directory / folder, f"/{folder}", "cache")


def compile_modules(programs: Tree, modules: dict[str, bytes], prefix: str) -> dict[str, bytes]:
    """Compile `modules` (paths ending in .py); return .pyc files beside their sources' places.

    prefix: the path that tracebacks show. Raises ImageBuildError.
    """
    with tempfile.TemporaryDirectory(dir=programs.directory.parent) as temporary:
        directory = Path(temporary)
        for name, content in modules.items():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        _run(programs, python_of(programs), directory, prefix, "beside")
        compiled = {
            path.relative_to(directory).as_posix(): path.read_bytes()
            for path in sorted(directory.rglob("*.pyc"))
        }
    missing = [name for name in modules if f"{name}c" not in compiled]
    if missing:
        raise ImageBuildError(f"the agent's {missing[0]} cannot be compiled by the image's Python")
    return compiled


def _run(programs: Tree, python: str, directory: Path, prefix: str, target: str) -> None:
    root = programs.directory
    foreign.run(
        programs,
        python,
        *("-S", "-s", "-B", "-X", "frozen_modules=on", "-c", _COMPILE),
        *(directory, directory, prefix, target),
        environment={
            "PYTHONHOME": str(root / "usr"),
            "PYTHONPATH": str(root / "usr/lib" / python),
            "PYTHONHASHSEED": "0",
        },
    )
