"""`boincvm cp`: what it refuses before it asks anybody."""

from pathlib import Path

import pytest

from boincvm.cli.main import main
from boincvm.exit_codes import ExitCode


@pytest.mark.parametrize(
    ("sides", "why"),
    [
        (("-", "vm:x"), "not standard input"),
        (("vm:x", "-"), "not standard input"),
        (("-", "chirp://store.site/x"), "not standard input"),
        (("a", "b"), "one of the two sides must be in a machine"),
        (("vm:a", "vm:b"), "one of the two sides must be in a machine"),
        (("chirp://a/x", "chirp://b/x"), "one side of a copy with Chirp must be on this host"),
        (("vm:a", "chirp://b/x"), "one side of a copy with Chirp must be on this host"),
    ],
)
def test_what_is_no_copy(
    sides: tuple[str, str],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["cp", *sides]) == ExitCode.USAGE
    assert why in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
