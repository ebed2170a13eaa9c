"""boincvm and what it imports, laid among a Python's own modules, and compiled.

Modules are there compiled only, where their source would be: the fewest files to check at each
start, and nothing that Python would want to write. The few sources that are read as text stay.
"""

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import boincvm
from boincvm.image.agent_files import SHARED, guest_directory
from boincvm.image.tools import run_tool

_READ_AS_TEXT = (*SHARED, "guestlink/terminal/remote.py")
_GUEST = "_guest"
"""The guest's sources, which another Python compiles."""
_COMPILE = """
import os, py_compile, sys
root, guest, *as_text = sys.argv[1:]
for directory, names, files in os.walk(root):
    names.sort()
    if guest in names:
        names.remove(guest)
    for name in sorted(files):
        path = os.path.join(directory, name)
        if name.endswith(".py"):
            own = os.path.relpath(path, root)
            py_compile.compile(
                path, None if own in as_text else path + "c", own, True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
            if own not in as_text:
                os.remove(path)
"""


def add_boincvm(modules: Path, pages: Path) -> None:
    """Copy boincvm into the directory `modules`, with the guest's sources and the `pages`."""
    ours = modules / "boincvm"
    _copy(Path(boincvm.__file__).parent, ours)
    if not (ours / _GUEST).exists():  # an installed package has them in it
        _copy(guest_directory(), ours / _GUEST)
    (ours / "_docs").mkdir(exist_ok=True)
    for page in pages.glob("*.md"):
        shutil.copyfile(page, ours / "_docs" / page.name)


def add_wheel(wheel: Path, modules: Path, licences: Path) -> None:
    """Unpack a wheel of Python alone into `modules`, and its licences into `licences`."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            top, _, rest = name.partition("/")
            if rest.startswith("licenses/") and top.endswith(".dist-info"):
                package = top.partition("-")[0]
                target = licences / f"{package}.{rest.rpartition('/')[2]}"
                target.write_bytes(archive.read(name))
            elif not top.endswith(".dist-info"):
                archive.extract(name, modules)


def compile_modules(python: Sequence[str | Path], modules: Path) -> None:
    """Compile all modules beneath `modules` by the folder's own Python. Raises ImageBuildError.

    In one process, in the order of names and without random hashes: equal sources give equal files.
    """
    as_text = (f"boincvm/{name}" for name in _READ_AS_TEXT)
    run_tool(
        [*python, "-S", "-P", "-s", "-B", "-c", _COMPILE, modules, _GUEST, *as_text],
        environment={"PYTHONHASHSEED": "0", "PYTHONPATH": ""},
    )


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(
        source,
        target,
        ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
        copy_function=shutil.copyfile,
    )
