"""Compile Python modules with the image's own Python, which runs here for it.

Debian compiles when it installs, which an image is not; and compiling at each start takes
seconds under emulation. Byte code is bound to neither times nor this computer's paths
(PEP 552, unchecked), so equal sources give equal images.
"""

import tempfile
from pathlib import Path

from boincvm.errors import ImageBuildError
from boincvm.image.tools import run_tool
from boincvm.image.tree import Tree

_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib")
_LOADER = "usr/lib64/ld-linux-x86-64.so.2"
_COMPILE = """
import compileall, sys
sys.exit(not compileall.compile_dir(
    sys.argv[1], quiet=2, force=True, stripdir=sys.argv[2], prependdir=sys.argv[3],
    invalidation_mode=__import__("py_compile").PycInvalidationMode.UNCHECKED_HASH,
    legacy=sys.argv[4] == "beside", maxlevels=30))
"""


def python_of(tree: Tree) -> str:
    """The tree's Python, like `python3.11`. Raises ImageBuildError."""
    found = sorted(
        (path.name for path in (tree.directory / "usr/bin").glob("python3.*")),
        key=lambda name: (len(name), name),
    )
    found = [name for name in found if name.removeprefix("python3.").isdigit()]
    if not found:
        raise ImageBuildError("the packages brought no Python, which the guest's agent needs")
    return found[0]


def compile_library(tree: Tree) -> None:
    """Byte code for the standard library and for Debian's Python packages.

    A module that cannot be compiled (some are tests of that) just stays a source.
    Raises ImageBuildError.
    """
    python = python_of(tree)
    for folder in (python, "python3"):
        if (tree.directory / "usr/lib" / folder).is_dir():
            _run(tree, python, tree.directory / "usr/lib" / folder, f"/usr/lib/{folder}", "cache")


def compile_modules(tree: Tree, modules: dict[str, bytes], prefix: str) -> dict[str, bytes]:
    """`modules` (paths ending in .py) as compiled ones (.pyc beside where the source would be).

    prefix: the path that tracebacks show. Raises ImageBuildError.
    """
    with tempfile.TemporaryDirectory(dir=tree.directory.parent) as temporary:
        directory = Path(temporary)
        for name, content in modules.items():
            place = directory / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        _run(tree, python_of(tree), directory, prefix, "beside")
        compiled = {
            path.relative_to(directory).as_posix(): path.read_bytes()
            for path in sorted(directory.rglob("*.pyc"))
        }
    missing = [name for name in modules if f"{name}c" not in compiled]
    if missing:
        raise ImageBuildError(f"the agent's {missing[0]} cannot be compiled by the image's Python")
    return compiled


def _run(tree: Tree, python: str, directory: Path, prefix: str, place: str) -> None:
    root = tree.directory
    library = root / "usr/lib" / python
    run_tool(
        [
            root / _LOADER,
            "--library-path",
            ":".join(str(root / folder) for folder in _LIBRARIES),
            "--argv0",
            root / "usr/bin" / python,
            root / "usr/bin" / python,
            "-S",
            "-s",
            "-B",
            "-X",
            "frozen_modules=on",
            "-c",
            _COMPILE,
            directory,
            directory,
            prefix,
            place,
        ],
        environment={
            "PYTHONHOME": str(root / "usr"),
            "PYTHONPATH": str(library),
            "PYTHONHASHSEED": "0",
        },
    )
