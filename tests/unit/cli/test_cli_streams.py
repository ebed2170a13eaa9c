"""Standard streams that are closed, full or read by nobody: the right code, and no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boincvm import standard_error
from boincvm.cli.output import report
from boincvm.errors import ImageMissingError
from boincvm.exit_codes import ExitCode

COMMAND = (sys.executable, "-m", "boincvm.cli.main")
BAD = {
    "closed": "2>&-",
    "full": "2>/dev/full",
    "unread": "2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}",
}
VERBS: dict[str, tuple[tuple[str, ...], int]] = {
    "nothing": ((), ExitCode.USAGE),
    "an unknown verb": (("rum",), ExitCode.USAGE),
    "an unknown option": (("run", "--nothing"), ExitCode.USAGE),
    "a missing image": (("run", "--image", "none", "--", "true"), ExitCode.IMAGE_MISSING),
    "a missing job file": (("run", "none.toml"), ExitCode.JOB_FILE),
    "no controller": (("ls",), ExitCode.HOST),
    "no controller, several": (("start", "a", "b"), ExitCode.HOST),
    "no controller, exec": (("exec", "a", "--", "true"), ExitCode.HOST),
    "no controller, cp": (("cp", "a:b", "c"), ExitCode.HOST),
    "no such snapshot": (("snapshot", "import", "--check", "none"), ExitCode.INPUT_FILE),
    "an image that is none": (("image", "rm", "none"), ExitCode.IMAGE_MISSING),
    "as JSON": (("run", "--json", "--image", "none", "--", "true"), ExitCode.IMAGE_MISSING),
}


@pytest.mark.parametrize("how", BAD)
@pytest.mark.parametrize("verb", VERBS)
def test_no_fault_in_telling_a_fault(tmp_path: Path, verb: str, how: str) -> None:
    words, code = VERBS[verb]
    done = subprocess.run(
        ["bash", "-c", f'"$@" {BAD[how]}', "bash", *COMMAND, *words],
        env={**os.environ, "BOINCVM_HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert "boincvm:" not in done.stdout  # it is not told there instead


@pytest.mark.parametrize("how", ["<&-", ">&-", "<&- >&- 2>&-", ">/dev/full"])
@pytest.mark.parametrize(
    "words", [("image", "ls"), ("image", "ls", "--json"), ("--version",), ("ls",)]
)
def test_no_trace_of_ours_with_other_streams(
    tmp_path: Path, words: tuple[str, ...], how: str
) -> None:
    done = subprocess.run(
        ["bash", "-c", f'"$@" {how}', "bash", *COMMAND, *words],
        env={**os.environ, "BOINCVM_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    prints = {"ls": ExitCode.HOST}.get(words[0], ExitCode.SUCCESS)
    full = prints or ExitCode.HOST_DISK_FULL
    assert done.returncode == (full if how == ">/dev/full" else prints), done.stderr
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr


class _Unwritable:
    """A stream that cannot be written, with or without a descriptor."""

    encoding = "utf-8"

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        if self._descriptor < 0:
            raise ValueError("closed")
        return self._descriptor

    def write(self, _text: str) -> None:
        raise OSError("no")

    def isatty(self) -> bool:
        raise ValueError("closed")


@pytest.mark.parametrize("kind", ["none", "bad descriptor", "own", "full pipe"])
def test_nothing_is_raised(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    descriptor = {"full pipe": writer, "bad descriptor": 999_999}.get(kind, -1)
    monkeypatch.setattr(standard_error, "_PATIENCE", 10)
    monkeypatch.setattr(sys, "stderr", None if kind == "none" else _Unwritable(descriptor))
    standard_error.show("x" * (1 << 20))
    assert not standard_error.is_terminal()
    error = ImageMissingError("there is none", hint="\udcff \u20ac")
    assert report(error, as_json=False) == ExitCode.IMAGE_MISSING
    assert report(ZeroDivisionError("a bug"), as_json=False) == ExitCode.BUG
    os.close(reader)
    os.close(writer)


_READS = (
    "import sys; from boincvm.cli.shared_input import SharedInput; shared = SharedInput();"
    "sys.stdin.read() if sys.argv[1] == 'all' else None; shared.report_consumed('run')"
)


@pytest.mark.parametrize(
    ("script", "reads", "reported"),
    [
        ('while read x; do "$@"; done <list', "all", True),
        ('while read x; do "$@"; done <list', "nothing", False),
        ('"$@" <list', "all", False),
        ('while read x; do "$@" </dev/null; done <list', "all", False),
        ('cat list | while read x; do "$@"; done', "all", False),  # it could be meant
        ('echo x | "$@"', "all", False),
        ('exec <&-; "$@"', "nothing", False),
    ],
)
def test_a_loop_whose_input_is_taken_is_reported(
    tmp_path: Path, script: str, reads: str, reported: bool
) -> None:
    (tmp_path / "list").write_text("1\n2\n3\n")
    command = ["bash", "-c", script, "bash", sys.executable, "-c", _READS, reads]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert done.stderr.count("4 bytes, went to the program") == int(reported)
    assert done.stderr.count("boincvm run -n") == int(reported)
