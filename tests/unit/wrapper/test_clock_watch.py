"""Detecting jumps of the host's clock."""

import pytest

from boincvm.wrapper import clock_watch
from boincvm.wrapper.clock_watch import LEAST, ClockWatch


class Clocks:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.wall, self.steady = 1.7e9, 50.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(clock_watch, "time", clocks)
    return clocks


@pytest.mark.parametrize("drift", [0.0, 0.5, -0.5])
def test_both_clocks_go_on(clocks: Clocks, drift: float) -> None:
    watch = ClockWatch()
    clocks.wall += 1000 + drift
    clocks.steady += 1000
    assert not watch.has_jumped()


@pytest.mark.parametrize("seconds", [7 * 24 * 3600.0, -3600.0, LEAST + 0.1])
def test_one_goes_on_alone(clocks: Clocks, seconds: float) -> None:
    watch = ClockWatch()
    clocks.wall += seconds
    assert [watch.has_jumped(), watch.has_jumped()] == [True, False]
