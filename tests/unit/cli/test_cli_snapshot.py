"""`boincvm snapshot`: distinguishing machines from jobs, and its output for machines."""

import json

import pytest

from boincvm.cli import controller_options
from boincvm.cli.main import main
from boincvm.errors import UsageError
from boincvm.exit_codes import ExitCode


class Recorder:
    """A controller with two machines, which records requests."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, object]]] = []

    def call(self, operation: str, **arguments: object) -> dict[str, object]:
        given = {name: value for name, value in arguments.items() if value is not None}
        self.asked.append((operation, given))
        if "nobody" in (given.get("vm"), given.get("vms")):
            raise UsageError("'nobody' matches no machine", hint="boincvm ls shows them")
        if operation == "list":
            return {"vms": [{"id": "web.1"}] if given["vms"] == "web.1" else []}
        if operation == "snapshot_list":
            one = {"name": "first", "description": "a\x1b[2Jb", "made": 0, "size": 3 << 20}
            return {"snapshots": [one] if given["vm"] == "web.1" else []}
        good = {"state": "running", "snapshot": given.get("name", "snapshot-1")}
        error = {"message": "it is powered off", "hint": "start it", "code": 210}
        return {"outcomes": {"web.1": good, "web.2": {"error": error}}}


@pytest.fixture
def reported(monkeypatch, tmp_path):
    made = Recorder()
    monkeypatch.setattr(controller_options, "client_of", lambda _arguments: made)
    monkeypatch.chdir(tmp_path)
    for name in ("job", "web.1"):
        (tmp_path / name).mkdir()
    return made


def test_one_is_taken(reported, capsys):
    assert main(["snapshot", "take", "web.*", "first", "--description", "one"]) == 210
    given = {"vms": "web.*", "name": "first", "description": "one"}
    assert reported.asked == [("snapshot_take", given)]
    shown = capsys.readouterr()
    assert shown.out == "web.1 has the snapshot first\n"
    assert shown.err == "boincvm: web.2: it is powered off\n  start it\n"


def test_outcomes_as_json(reported, capsys):
    assert main(["snapshot", "restore", "web.*", "--json"]) == 210
    assert reported.asked == [("snapshot_restore", {"vms": "web.*"})]
    outcomes = json.loads(capsys.readouterr().out)["outcomes"]
    assert outcomes["web.1"] == {"state": "running", "snapshot": "snapshot-1"}
    assert outcomes["web.2"]["error"]["hint"] == "start it"


def test_one_is_removed(reported, capsys):
    assert main(["snapshot", "rm", "web.1", "first"]) == 210
    assert reported.asked == [("snapshot_remove", {"vms": "web.1", "name": "first"})]
    assert capsys.readouterr().out == "web.1 no longer has the snapshot first\n"
    assert main(["snapshot", "rm", "web.1"]) == ExitCode.USAGE


def test_they_are_listed(reported, capsys):
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
    ("words", "is_requested"),
    [
        (["ls"], False),
        (["ls", "."], False),
        (["ls", "job"], False),
        (["ls", "./web.1"], False),
        (["ls", "job", "--vm"], True),
        (["ls", "job", "--controller", "unix:/x"], True),
        (["ls", "web.1"], True),  # though it is a directory, too
        (["ls", "web.2"], True),
        (["take", "job"], False),
        (["take", "web.1"], True),
        (["take", "job", "first"], True),
    ],
)
def test_whose_it_is(reported, words, is_requested):
    main(["snapshot", *words])
    assert any(verb != "list" for verb, _ in reported.asked) == is_requested


def test_a_job_needs_no_controller(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BOINCVM_CONTROLLER", f"unix:{tmp_path}/nowhere")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job").mkdir()
    assert main(["snapshot", "ls", "job"]) == 0
    assert capsys.readouterr().out == "there are no checkpoints\n"


def test_a_name_that_is_neither(reported, capsys):
    assert main(["snapshot", "take", "nobody"]) == ExitCode.USAGE
    told_of = capsys.readouterr().err
    assert "boincvm ls shows them; a job's directory is given as ./nobody" in told_of
    assert main(["snapshot", "rm", "nobody", "first"]) == ExitCode.USAGE
    assert "directory" not in capsys.readouterr().err


class Hostile:
    """A controller with a machine of a hostile host."""

    def call(self, operation: str, **_arguments: object) -> dict[str, object]:
        if operation == "snapshot_list":
            made = (1e300, 1e12, -1, True, "now", None)
            one = {"name": "a\x1b[2J\x9b", "description": "\x07\td", "size": 1e300}
            return {"snapshots": [{**one, "made": at} for at in made]}
        if operation == "logs":
            return {"lines": ["a\x1b[2J\tb\r", 7]}
        return {"outcomes": {"b.1": {}, "b.2": {"snapshot": "\x1b[2J"}}}


@pytest.fixture
def hostile(monkeypatch):
    monkeypatch.setattr(controller_options, "client_of", lambda _arguments: Hostile())


@pytest.mark.usefixtures("hostile")
def test_what_a_hostile_host_answers_is_only_printed(capsys):
    assert main(["snapshot", "ls", "b.1"]) == 0
    _, *rows = capsys.readouterr().out.splitlines()
    assert {tuple(row.split()) for row in rows} == {("a[2J", "-", "-", "d")}
    assert main(["snapshot", "restore", "b.*"]) == 0
    assert capsys.readouterr().out == (
        "b.1 was restored from one without a name\nb.2 was restored from [2J\n"
    )
    assert main(["snapshot", "take", "b.*"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "b.2 has the snapshot [2J"
    assert main(["logs", "b.1"]) == 0
    assert capsys.readouterr().out == "a[2J\tb\n7\n"


class Empty:
    """A controller without machines."""

    def call(self, _operation: str, **_arguments: object) -> dict[str, object]:
        return {"outcomes": {}}


@pytest.mark.parametrize("arguments", [["stop", "all"], ["snapshot", "take", "all"]])
def test_there_is_no_machine(arguments, monkeypatch, capsys):
    monkeypatch.setattr(controller_options, "client_of", lambda _arguments: Empty())
    assert main(arguments) == 0
    assert capsys.readouterr().out == "there is nothing to do: no machine exists\n"
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outcomes"] == {}
