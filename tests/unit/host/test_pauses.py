"""Pauses of a thread that another thread ends."""

import os
from threading import Thread

import pytest

from boincvm.host.pauses import Pauses


def test_they_end_although_a_forked_child_has_their_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    pipes = []
    make_pipe = os.pipe

    def pipe() -> tuple[int, int]:
        pipes.append(make_pipe())
        return pipes[-1]

    monkeypatch.setattr(os, "pipe", pipe)
    pauses, was_ended = Pauses(), []
    inherited = [os.dup(end) for end in pipes[0]]
    try:
        thread = Thread(target=lambda: was_ended.append(pauses.wait(10.0)))
        thread.start()
        pauses.end(thread)
        assert was_ended == [True]
    finally:
        for end in inherited:
            os.close(end)
