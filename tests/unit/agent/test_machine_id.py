"""The guest's /etc/machine-id in a copy of a machine, which renews it in memory."""

import re
from pathlib import Path

import pytest

from boincvm_agent import machine

_MACHINE_ID = re.compile(rb"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}\n")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path that takes the place of /etc/machine-id."""
    path = tmp_path / "machine-id"
    monkeypatch.setattr(machine, "_MACHINE_ID", str(path))
    return path


def test_a_new_one_is_in_the_file_whichever_way_it_is_written(path: Path) -> None:
    machine.renew_machine_id()
    written = path.read_bytes()
    mapped = machine.MachineId()
    assert path.read_bytes() == written  # it is a copy that gets a new one
    found = {written}
    for _ in range(2):
        mapped.renew()
        found.add(path.read_bytes())
    assert len(found) == 3
    assert all(_MACHINE_ID.fullmatch(number) for number in found)


@pytest.mark.parametrize("content", [None, b"", b"0123"])
def test_a_file_that_is_missing_or_too_short_is_not_mapped(
    path: Path, content: bytes | None
) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((OSError, ValueError)):
        machine.MachineId()


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(bytes(64))
    path.symlink_to("other")
    with pytest.raises(OSError, match="symbolic links"):
        machine.MachineId()


def test_the_timer_is_tried_with_the_highest_priority_and_only_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[object] = []
    monkeypatch.setattr(machine, "put_first", lambda *, first: steps.append(first))
    monkeypatch.setattr("select.select", lambda *waits: steps.append(waits))
    machine.try_timer()
    assert steps == [True, ([], [], [], 1e-6), False]
