"""A volunteer's folders are hidden in whatever way Windows' programs write them."""

import os
import sys
from pathlib import Path

import pytest

from boincvm import redaction
from boincvm.host.child_output import ChildOutput
from boincvm.hypervisor.qemu.process import QemuProcess

assert sys.platform == "win32"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(redaction, "_hidden", {})
    monkeypatch.setattr(redaction, "_pattern", None)
    home = tmp_path / "Jörg Müller"
    home.mkdir()
    redaction.hide(str(home), "~")
    return home


def test_every_spelling(home: Path) -> None:
    expected = {
        f"{home}\\x.txt": "~\\x.txt",
        f"{home.as_posix()}/x.txt": "~/x.txt",
        f"{str(home).upper()}\\x.txt": "~\\x.txt",
        repr(f"{home}\\x.txt"): "'~\\x.txt'",
        f"not {home}!": "not ~!",
        f"{home}2": f"{home}2",
    }
    assert {text: redaction.redact(text) for text in expected} == expected


def test_a_drive_and_windows_are_shown(home: Path) -> None:
    for path in ("C:\\", "C:", os.environ["SYSTEMROOT"], "\\"):
        redaction.hide(path, "hidden")
    text = "C:\\x c:\\windows\\system32\\cmd.exe"
    assert redaction.redact(text) == text


def test_what_qemu_says_in_any_bytes(home: Path, tmp_path: Path) -> None:
    """It prints a name in UTF-8, or in the code page of this computer."""
    process = QemuProcess.__new__(QemuProcess)
    process._output = written = ChildOutput(tmp_path / "log")
    try:
        for encoding in ("utf-8", "mbcs"):
            os.write(written.inherited, b"\xff\x81\n" + f"{home}\\disk: no\n".encode(encoding))
            assert process.last_output() == "~\\disk: no"
        os.write(written.inherited, b"guest: \xff\x81!\n")
        assert process.last_output().startswith("guest: ")
    finally:
        written.close()
