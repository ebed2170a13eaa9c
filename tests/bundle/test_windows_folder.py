"""The folder for volunteers with Windows, run under wine, and when it is damaged."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from boincvm import __version__
from boincvm.exit_codes import ExitCode
from support.bundles import made_folder
from support.windows.python import WAIT_LIMIT, WindowsPython, windows_path, windows_python

WORKER = '#include <stdio.h>\nint main(void) { return puts("worked") < 0; }\n'
JOB = """\
<job_desc><task>
  <application>worker.exe</application><stdout_filename>out.txt</stdout_filename>
</task></job_desc>
"""

# The first test makes folder and Windows, and waits for tests/vm/test_windows.py, which uses it.
pytestmark = pytest.mark.timeout(WAIT_LIMIT + 1500)


@pytest.fixture(scope="module")
def folder() -> Path:
    return made_folder("windows_x86_64")


@pytest.fixture(scope="module")
def windows(folder: Path) -> Iterator[WindowsPython]:
    with windows_python() as windows:
        yield windows


def test_the_programs_start(windows: WindowsPython, folder: Path, tmp_path: Path) -> None:
    version = windows.run(folder / "boincvm-wrapper.exe", ["--version"], tmp_path)
    assert (version.returncode, version.stdout) == (0, f"boincvm-wrapper {__version__}\n")
    usage = windows.run(folder / "boincvm.exe", ["--help"], tmp_path)
    assert usage.stdout.startswith("usage: boincvm VERB")


def test_a_task_of_the_host(windows: WindowsPython, folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "worker.c"
    source.write_text(WORKER)
    slot = tmp_path / "slot"
    slot.mkdir()
    compiler = ["x86_64-w64-mingw32-gcc", "-static", "-o", slot / "worker.exe", source]
    subprocess.run(compiler, check=True)
    (slot / "job.xml").write_text(JOB)
    done = windows.run(folder / "boincvm-wrapper.exe", [], slot)
    assert done.returncode == 0, done.stdout
    assert (slot / "out.txt").read_text() == "worked\n"


def test_its_python_reads_nothing_of_the_host(
    windows: WindowsPython, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "encodings.py").write_text("raise SystemExit('the host was asked')")
    done = windows.run(folder / "python.exe", ["-c", "import sys; print(sys.path)"], tmp_path)
    own = windows_path(folder)
    expected = [f"{own}\\python311.zip", f"{own}\\lib", own]
    assert done.stdout.strip() == str(expected)


def test_a_damaged_file_is_reported_and_never_run(
    windows: WindowsPython, folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "boincvm"
    shutil.copytree(folder, copy, copy_function=os.link)
    altered = bytearray((folder / "python311.dll").read_bytes())
    altered[len(altered) // 2] ^= 1
    truncated = (folder / "manifest").read_bytes()[:-1]
    for name, content in (("python311.dll", altered), ("manifest", truncated)):
        (copy / name).unlink()
        (copy / name).write_bytes(content)
        done = windows.run(copy / "boincvm-wrapper.exe", ["--version"], tmp_path)
        assert done.returncode == ExitCode.HOST
        assert name in done.stdout
        assert "was altered or truncated" in done.stdout


def test_pythons_files_are_those_that_were_signed(folder: Path) -> None:
    """A signature of Windows lies within the file, so it holds as long as nothing is changed."""
    for name in ("python.exe", "python311.dll"):
        assert b"Python Software Foundation" in (folder / name).read_bytes()[-20000:]
