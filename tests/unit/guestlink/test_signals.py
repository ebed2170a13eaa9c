"""Signals of guests have Linux's names, on any host."""

import signal
import sys

import pytest

from boincvm.guestlink import signals


@pytest.mark.skipif(sys.platform != "linux", reason="compares with this system's own")
def test_they_are_linux_s() -> None:
    for one in signal.valid_signals():
        name = "" if one >= signal.SIGRTMIN else signal.Signals(one).name
        assert signals.name_of(one) == name


@pytest.mark.parametrize("number", [-9, 0, 32, 64, 77])
def test_numbers_without_a_name(number: int) -> None:
    assert signals.name_of(number) == ""
