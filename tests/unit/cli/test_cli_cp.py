"""`boincvm cp`: what it refuses before it sends any request."""

from pathlib import Path

import pytest

from boincvm.cli import controller_options
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


class Listing:
    """A client that knows of guests, and nothing else."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def call(self, operation: str, **_: object) -> dict[str, object]:
        assert operation == "list"
        return {"vms": [{"id": name, "presence": "present"} for name in self._names]}


def test_a_guest_whose_name_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The broker may be another's, and what guests call themselves there may lead anywhere."""
    names = [str(tmp_path / "elsewhere"), "a/b"]
    monkeypatch.setattr(controller_options, "client_of", lambda _: Listing(names))
    assert main(["cp", "all:x", str(tmp_path / "to")]) == ExitCode.OUTPUT_FILE
    errors = capsys.readouterr().err
    assert all(f"no directory can have the name {name!r}" in errors for name in names)
    assert list(tmp_path.iterdir()) == []
