"""What the agent sends for a file whose blocks the host copies from the root disk."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from boincvm_agent import root_disk, transfer
from boincvm_agent.root_disk import Blocks

SIZE = transfer._DISK_WORTH + 5
PIECE = 1 << 20


class Link:
    """Records the messages that are sent."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.sent = 0

    def send(self, word: str, call: str, headers: dict[str, str], body: bytes = b"") -> None:
        self.words.append(word)
        if word == "disk":
            self.sent += int(headers["length"])


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(transfer, "WORK", str(tmp_path))
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    return path


def steps(sender: transfer.Sender, answers: Iterator[str]) -> None:
    """Send everything; the host's message arrives when the sender waits for it."""
    for waits in sender.steps():
        if waits:
            sender.handle_copied(again=next(answers) == "again")


def send(monkeypatch: pytest.MonkeyPatch, found: list[Blocks | None], answers: list[str]) -> Link:
    maps = iter(found)
    monkeypatch.setattr(root_disk, "blocks_of", lambda *_: next(maps))
    link = Link()
    sender = transfer.Sender(link, transfer.TransferDisk(), "1", b"file", [], 0, PIECE)
    steps(sender, iter(answers))
    assert next(maps, "all were used") == "all were used"
    return link


def blocks(at: int = 0, changed: int = 1) -> Blocks:
    return Blocks([(0, at, SIZE)], SIZE, changed)


def test_a_file_that_stays_as_it_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = send(monkeypatch, [blocks(), blocks()], ["taken"] * 5)
    assert link.words == ["entry", *["disk"] * 5, "done"]
    assert link.sent == SIZE


@pytest.mark.parametrize("after", [blocks(at=4096), blocks(changed=2), None])
def test_a_file_that_changes_meanwhile_is_sent_again(
    file: Path, monkeypatch: pytest.MonkeyPatch, after: Blocks | None
) -> None:
    link = send(monkeypatch, [blocks(), after], ["taken"] * 5)
    assert link.words[:7] == ["entry", *["disk"] * 5, "again"]
    assert set(link.words[7:-1]) == {"data"}
    assert link.words[-1] == "done"


def test_a_host_that_cannot_read_the_blocks(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = send(monkeypatch, [blocks()], ["taken", "again", "taken", "taken", "taken"])
    begin = link.words.index("again")
    assert link.words[:begin] == ["entry", *["disk"] * (begin - 1)]
    assert begin - 1 <= 5
    assert set(link.words[begin + 1 : -1]) == {"data"}
    assert link.words[-1] == "done"


def test_a_file_that_the_disk_does_not_have(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = send(monkeypatch, [None], [])
    assert set(link.words[1:-1]) == {"data"}
