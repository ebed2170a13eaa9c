"""`boincvm ls`: the columns of its table."""

import json

import pytest

from boincvm.cli import controller_options
from boincvm.cli.main import main

MACHINE: dict[str, object] = {
    "id": "web.1",
    "state_label": "running",
    "host": "here",
    "image": "base",
    "cpus": 2,
    "memory": 512 << 20,
    "disk": 8 << 30,
    "labels": {"site": "cern", "rack": "7", "image": "base", "cpus": "2", "host": "here"},
}
GUEST: dict[str, object] = {
    **dict.fromkeys(MACHINE),
    "id": "lab",
    "state_label": "present",
    "labels": {"memory": "9", "note": "a\x1b[2Jb"},
}


class Controller:
    def call(self, _operation: str, **_arguments: object) -> dict[str, object]:
        return {"vms": [MACHINE, GUEST]}


@pytest.fixture(autouse=True)
def controller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller_options, "client_of", lambda _arguments: Controller())


def test_disks_and_labels_are_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 0
    assert "LABELS" not in capsys.readouterr().out
    assert main(["ls", "--wide"]) == 0
    header, machine, guest = capsys.readouterr().out.splitlines()
    assert header.split()[-2:] == ["DISK", "LABELS"]
    assert machine.split()[-3:] == ["8.0", "GiB", "rack=7,site=cern"]
    assert guest.split()[-2:] == ["-", "note=a[2Jb"]


def test_as_json_they_are_always_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"vms": [MACHINE, GUEST]}
