"""What of boincvm runs on Windows, run there: Windows' own Python under wine.

wine is not Windows: it shows that the calls are right, not what Windows makes of each.
"""

from pathlib import Path

import pytest

from support.windows.packed_folder import main_program_variables, make_main_program
from support.windows.python import RUN_LIMIT, WAIT_LIMIT, windows_python
from support.windows.qemu import qemu_of_app_version, qemu_of_host, windows_home

CHECKOUT = Path(__file__).parents[2]
PORTABLE = ("tests/unit/bus", "tests/unit/test_durations.py", "tests/unit/test_sizes.py")
"""Tests of Linux that Windows passes as they are."""
# Each waits for the others and for tests/bundle/test_windows_folder.py, for there is one Windows.
pytestmark = [pytest.mark.timeout(WAIT_LIMIT + RUN_LIMIT), pytest.mark.first]


@pytest.mark.parametrize("paths", [("tests/windows",), PORTABLE], ids=["windows", "portable"])
def test_on_windows(paths: tuple[str, ...]) -> None:
    with windows_python() as python:
        options = ["--timeout=100", "-m", "not machines and not main_program", *paths]
        done = python.pytest(CHECKOUT, options, limit=RUN_LIMIT)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.parametrize("file", ["test_run.py", "test_machine.py", "test_wrapper_machine.py"])
def test_machines_on_windows(base_image: Path, tmp_path: Path, file: str) -> None:
    """Windows' build of QEMU runs the same image; the wrapper takes it from its slot.

    One of the wrapper's tasks starts with the main program of an app version, and so with the
    folder's Python.
    """
    variables = windows_home(tmp_path / "home", base_image)
    if "wrapper" in file:
        variables |= qemu_of_app_version(tmp_path) | main_program(tmp_path)
    else:
        variables |= qemu_of_host()
    with windows_python() as python:
        options = [f"--timeout={RUN_LIMIT}", "-m", "machines", f"tests/windows/{file}"]
        done = python.pytest(CHECKOUT, options, variables, limit=RUN_LIMIT)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def main_program(directory: Path) -> dict[str, str]:
    """Make the main program of an app version, and return the variables that name its files."""
    program, archive = directory / "main.exe", directory / "boincvm.cab"
    make_main_program(program, archive)
    return main_program_variables(program, archive)
