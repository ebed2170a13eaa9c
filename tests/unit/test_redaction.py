"""What leaves this computer does not contain its directories."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boincvm import redaction
from boincvm.host.child_output import ChildOutput
from boincvm.hypervisor.qemu.process import QemuProcess
from boincvm.redaction import hide, redact


@pytest.fixture(autouse=True)
def _nothing_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_hidden", {})
    monkeypatch.setattr(redaction, "_pattern", None)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("/home/ann/slots/0/out cannot be read", "out cannot be read"),
        ("/home/ann/slots/0: full", ".: full"),
        ("'/home/ann/projects/x/a b'", "'../../projects/x/a b'"),
        ("--file=/home/ann/projects/x,/home/ann", "--file=../../projects/x,~"),
        ("file:///home/ann//a", "file://~/a"),
        ("/home/anna/a /home/ann-b", "/home/anna/a /home/ann-b"),
        ("/usr/bin/python3 /work/a", "/usr/bin/python3 /work/a"),
        ('  File "/home/ann/lib/boincvm/a.py", line 1', '  File "boincvm/a.py", line 1'),
        ("/home/ann/slots/01", "~/slots/01"),
    ],
)
def test_what_is_seen(text: str, seen: str) -> None:
    for path, shown in (
        ("/home/ann", "~"),
        ("/home/ann/lib/", ""),
        ("/home/ann/projects/x", "../../projects/x"),
        ("/home/ann/slots/0", ""),
        ("/usr/bin", ""),
        ("/", "nothing"),
        ("", "nothing"),
        ("relative", "nothing"),
    ):
        hide(path, shown)
    assert redact(text) == seen


def test_links_and_odd_names(tmp_path: Path) -> None:
    """A directory's name may be printed by `repr` or `ascii`, and be reached through a link."""
    real = tmp_path / os.fsdecode(b"ann\xe9")
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    hide(str(tmp_path / "link"), "~")
    for form in (str(real), repr(str(real)), ascii(str(real)), str(tmp_path / "link")):
        assert "ann" not in redact(form)
        assert str(tmp_path) not in redact(form)


def test_what_qemu_says(tmp_path: Path) -> None:
    """Neither an odd name nor a truncated line reveals what must be hidden."""
    folder = str(tmp_path / os.fsdecode(b"ann\xe9"))
    hide(folder, "~")
    process = QemuProcess.__new__(QemuProcess)
    process._output = written = ChildOutput(tmp_path / "qemu.log")
    try:
        os.write(written.inherited, os.fsencode(f"qemu: {'x' * 290} {folder}/disk: no\n"))
        output = process.last_output()
        os.write(written.inherited, os.fsencode(f"qemu: '{folder}/disk' is locked\n\n{' ' * 500}"))
        assert process.last_output() == "qemu: '~/disk' is locked"
    finally:
        written.close()
    assert output.startswith("qemu: xxx")
    assert "/" not in output.replace("~/", "")


def test_traces_and_warnings_of_pythons_own(tmp_path: Path) -> None:
    """This includes pieces, as Python writes them, other threads, and exceptions of unawaited
    tasks."""
    (tmp_path / "module.py").write_text(
        "import sys, threading, warnings\n"
        "from boincvm.redaction import RedactedErrors, hide_this_user\n"
        "sys.stderr = RedactedErrors(); hide_this_user()\n"
        "def fail(): raise ValueError(__file__)\n"
        "thread = threading.Thread(target=fail); thread.start(); thread.join()\n"
        "warnings.warn(__file__)\n"
        "class Odd:\n    def __del__(self): fail()\n"
        "Odd()\n"
        "print('unfinished', file=sys.stderr, end='')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import module; module.fail()"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("ValueError: module.py") == 3
    assert 'File "module.py", line 4, in fail' in done.stderr
    assert "module.py:6: UserWarning: module.py" in done.stderr
    assert "unfinished" in done.stderr
    assert str(tmp_path) not in done.stderr
    assert sys.prefix not in done.stderr
