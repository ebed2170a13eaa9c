"""`boincvm snapshot`: what is a machine's and what is a job's, and what is shown of machines."""

import json

import pytest

from boincvm.cli import controller_options
from boincvm.cli.main import main
from boincvm.errors import UsageError
from boincvm.exit_codes import ExitCode


class Told:
    """A controller, with two machines."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, object]]] = []

    def call(self, operation: str, **arguments: object) -> dict[str, object]:
        given = {name: value for name, value in arguments.items() if value is not None}
        self.asked.append((operation, given))
        if "nobody" in (given.get("vm"), given.get("vms")):
            raise UsageError("'nobody' matches no machine", hint="boincvm ls shows them")
        if operation == "snapshot_list":
            one = {"name": "first", "description": "a\x1b[2Jb", "made": 0, "size": 3 << 20}
            return {"snapshots": [one] if given["vm"] == "web.1" else []}
        good = {"state": "running", "snapshot": given.get("name", "snapshot-1")}
        error = {"message": "it is powered off", "hint": "start it", "code": 210}
        return {"outcomes": {"web.1": good, "web.2": {"error": error}}}


@pytest.fixture
def told(monkeypatch, tmp_path):
    made = Told()
    monkeypatch.setattr(controller_options, "client_of", lambda _arguments: made)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job").mkdir()
    return made


def test_one_is_taken(told, capsys):
    assert main(["snapshot", "take", "web.*", "first", "--description", "one"]) == 210
    given = {"vms": "web.*", "name": "first", "description": "one"}
    assert told.asked == [("snapshot_take", given)]
    shown = capsys.readouterr()
    assert shown.out == "web.1 has the snapshot first\n"
    assert shown.err == "boincvm: web.2: it is powered off\n  start it\n"


def test_outcomes_as_json(told, capsys):
    assert main(["snapshot", "restore", "web.*", "--json"]) == 210
    assert told.asked == [("snapshot_restore", {"vms": "web.*"})]
    outcomes = json.loads(capsys.readouterr().out)["outcomes"]
    assert outcomes["web.1"] == {"state": "running", "snapshot": "snapshot-1"}
    assert outcomes["web.2"]["error"]["hint"] == "start it"


def test_one_is_removed(told, capsys):
    assert main(["snapshot", "rm", "web.1", "first"]) == 210
    assert told.asked == [("snapshot_remove", {"vms": "web.1", "name": "first"})]
    assert capsys.readouterr().out == "web.1 no longer has the snapshot first\n"
    assert main(["snapshot", "rm", "web.1"]) == ExitCode.USAGE


def test_they_are_listed(told, capsys):
    assert main(["snapshot", "ls", "web.1"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "MADE", "SIZE", "DESCRIPTION"]
    assert row.startswith("first  19")
    assert row.endswith("3.0 MiB  a[2Jb")
    assert main(["snapshot", "ls", "web.2"]) == 0
    assert "take one: boincvm snapshot take web.2" in capsys.readouterr().out
    assert main(["snapshot", "ls", "--json", "web.1"]) == 0
    assert json.loads(capsys.readouterr().out)["snapshots"][0]["name"] == "first"


@pytest.mark.parametrize(
    ("words", "is_asked"),
    [
        (["ls"], False),
        (["ls", "."], False),
        (["ls", "job"], False),
        (["ls", "./web.1"], False),
        (["ls", "job", "--vm"], True),
        (["ls", "job", "--controller", "unix:/x"], True),
        (["ls", "web.1"], True),
        (["take", "job"], False),
        (["take", "job", "first"], True),
    ],
)
def test_whose_it_is(told, words, is_asked):
    main(["snapshot", *words])
    assert bool(told.asked) == is_asked


def test_a_name_that_is_neither(told, capsys):
    assert main(["snapshot", "take", "nobody"]) == ExitCode.USAGE
    told_of = capsys.readouterr().err
    assert "boincvm ls shows them; a job's directory is given as ./nobody" in told_of
    assert main(["snapshot", "rm", "nobody", "first"]) == ExitCode.USAGE
    assert "directory" not in capsys.readouterr().err
