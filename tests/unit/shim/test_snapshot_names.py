"""Names and descriptions of snapshots, and the file that contains them."""

from pathlib import Path

import pytest

from boincvm.errors import HostError, UsageError
from boincvm.shim.machine_directory import MachineDirectory
from boincvm.shim.snapshots import MOST, Snapshots


def table(number: int, programs: int = 0) -> dict[str, object]:
    program = {"call": 1, "name": "x" * 200}
    return {
        "name": f"snapshot-{number}",
        "number": number,
        "description": "",
        "made": 0.0,
        "size": 1,
        "programs": [program] * programs,
    }


def test_a_name_is_chosen_that_is_free(tmp_path: Path) -> None:
    location = MachineDirectory(tmp_path)
    assert Snapshots(location).choose_name(None, "") == "snapshot-1"
    location.write_snapshots([table(2)])
    assert Snapshots(location).choose_name(None, "a line") == "snapshot-3"
    assert Snapshots(location).choose_name("mine", "") == "mine"


@pytest.mark.parametrize("name", [None, "mine"])
@pytest.mark.parametrize("description", ["x" * 256, "two\nlines", "\x1b[2J"])
def test_descriptions_that_are_none(tmp_path: Path, name: str | None, description: str) -> None:
    with pytest.raises(UsageError, match="one line"):
        Snapshots(MachineDirectory(tmp_path)).choose_name(name, description)


@pytest.mark.parametrize(
    "name", ["", "a/b", "../a", ".a", "x" * 65, "snapshot-1", "NUL", "com1.x", "a."]
)
def test_names_that_are_none_or_taken(tmp_path: Path, name: str) -> None:
    location = MachineDirectory(tmp_path)
    location.write_snapshots([table(1)])
    with pytest.raises(UsageError):
        Snapshots(location).choose_name(name, "")


def test_a_name_that_was_given_before_it_was_refused(tmp_path: Path) -> None:
    location = MachineDirectory(tmp_path)
    location.write_snapshots([{**table(1), "name": "a."}])
    assert Snapshots(location).find("a.").number == 1


def test_as_many_as_there_may_be_can_be_read_again(tmp_path: Path) -> None:
    location = MachineDirectory(tmp_path)
    location.write_snapshots([table(number, programs=64) for number in range(1, MOST + 1)])
    assert len(Snapshots(location).all()) == MOST
    with pytest.raises(UsageError, match="64 snapshots"):
        Snapshots(location).choose_name("one-more", "")


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "snapshots.json").write_text('{"snapshots": [1]}')
    with pytest.raises(HostError, match="is damaged"):
        Snapshots(MachineDirectory(tmp_path)).all()
