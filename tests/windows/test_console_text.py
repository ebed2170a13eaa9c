"""Text on Windows is UTF-8, whatever the user's code page is."""

import atexit
import subprocess
import sys

import pytest

from boincvm.host import win32_windows as win32
from boincvm.host.console_text_windows import use_utf8

assert sys.platform == "win32"

LIMIT = 60.0
FAULT = """
from boincvm.cli.main import main
sys.argv[1:] = ["run", "--image", "Ж ü"]
sys.exit(main())
"""
PRINT = "from boincvm.host.inherited import reset_inherited_state as r; r(); print('Ж ü')"


def output_of(program: str) -> bytes:
    """Return all output of a program of Python's, whose own streams have the code page."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{program}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=LIMIT,
    )
    return done.stdout


@pytest.mark.parametrize("program", [FAULT, PRINT])
def test_what_is_printed_to_a_pipe_or_file(program: str) -> None:
    assert "Ж ü".encode() in output_of(program)


def test_a_console_takes_bytes_for_utf_8_until_we_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in: wine has no console here."""
    code_pages, at_end = [850], []

    class Console:
        @staticmethod
        def GetConsoleOutputCP() -> int:  # noqa: N802
            return code_pages[-1]

        @staticmethod
        def SetConsoleOutputCP(number: int) -> bool:  # noqa: N802
            code_pages.append(number)
            return True

    monkeypatch.setattr(win32, "kernel32", Console)
    monkeypatch.setattr(atexit, "register", lambda call, *values: at_end.append((call, values)))
    use_utf8()
    use_utf8()
    assert code_pages == [850, 65001]
    ((restore, values),) = at_end
    restore(*values)
    assert code_pages[-1] == 850
