"""The main program of an app version for Windows and the packed folder, made for tests."""

from pathlib import Path

from boincvm.project.bundle.build import FOLDER
from boincvm.project.bundle.cabinet import pack_cabinet
from boincvm.project.bundle.launchers import windows_main_program
from support.bundles import made_folder
from support.windows.main_program import MAIN_PROGRAM, PACKED_FOLDER
from support.windows.python import windows_path

_PLATFORM = "windows_x86_64"


def make_main_program(program: Path, archive: Path) -> None:
    """Make the main program and, packed in little time, the folder."""
    windows_main_program(program)
    pack_cabinet(made_folder(_PLATFORM), FOLDER, archive, level=1)


def main_program_variables(program: Path, archive: Path) -> dict[str, str]:
    """Return the variables by which tests on Windows find both."""
    return {MAIN_PROGRAM: windows_path(program), PACKED_FOLDER: windows_path(archive)}
