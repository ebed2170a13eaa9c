"""The agent's end of two serial lines, simulated by pseudo-terminals."""

import os
from collections.abc import Iterator

import pytest

from boincvm_agent import port


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """Return the host's ends of both."""
    hosts, guests = zip(os.openpty(), os.openpty(), strict=True)
    monkeypatch.setattr(port, "_DATA", os.ttyname(guests[0]))
    monkeypatch.setattr(port, "_RECEIPTS", os.ttyname(guests[1]))
    yield hosts
    for descriptor in (*hosts, *guests):
        os.close(descriptor)


def test_bytes_pass_as_they_are_and_what_was_read_is_reported(lines: tuple[int, int]) -> None:
    data, receipts = lines
    serial = port.open_serial_port()
    every = bytes(range(256)) * 5
    os.write(data, every)
    got = b""
    while len(got) < len(every):
        got += serial.read(1000)
    assert got == every
    reported = b""
    while sum(reported[::2]) + sum(reported[1::2]) * 256 < len(every):  # a line gives it in pieces
        reported += os.read(receipts, 100)
    counts = [int.from_bytes(reported[at : at + 2], "little") for at in range(0, len(reported), 2)]
    assert sum(counts) == len(every)
    assert max(counts) <= 1000
    os.write(serial.descriptor, every)
    answered = b""
    while len(answered) < len(every):
        answered += os.read(data, 4096)
    assert answered == every


def test_nothing_is_reported_where_there_was_nothing_to_read(lines: tuple[int, int]) -> None:
    serial = port.open_serial_port()
    with pytest.raises(BlockingIOError):
        serial.read(100)
    os.set_blocking(lines[1], False)
    with pytest.raises(BlockingIOError):
        os.read(lines[1], 1)
