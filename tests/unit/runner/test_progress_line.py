"""The line that shows progress gets in the way neither of output nor of what is typed."""

import asyncio
import os
from collections.abc import Callable

import pytest

from boincvm.job.model import MachineTask
from boincvm.runner import progress_line, status_line
from boincvm.runner.progress_line import ProgressLine
from boincvm.runner.streams import RunStreams

is_pipe = progress_line._is_pipe
pytestmark = pytest.mark.timeout(30)


class Shown(list[str]):
    """What was shown on standard error, as it came."""

    def __init__(self) -> None:
        super().__init__()
        self._news = asyncio.Event()

    def show(self, text: str) -> None:
        self.append(text)
        self._news.set()

    async def until(self, condition: Callable[[str], bool]) -> None:
        async with asyncio.timeout(20):
            while not any(map(condition, self)):
                self._news.clear()
                await self._news.wait()


@pytest.fixture
async def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    made = Shown()
    for module in (progress_line, status_line):
        monkeypatch.setattr(module, "show", made.show)
    monkeypatch.setattr(progress_line, "SILENCE", 0.01)
    monkeypatch.setattr(progress_line, "_PERIOD", 0.01)
    monkeypatch.setattr(os, "isatty", lambda _: True)
    monkeypatch.setattr(progress_line, "is_background_job", lambda _: False)
    monkeypatch.setattr(progress_line, "_is_pipe", lambda _: False)
    return made


async def test_a_silent_program_is_said_to_run(shown: Shown) -> None:
    line = ProgressLine()
    line.phase("run")
    assert shown == []
    await shown.until(lambda text: text.startswith("\r\x1b[Kboincvm: running "))
    await shown.until(lambda text: text.startswith("\x1b7\rboincvm: running "))
    assert all(text.endswith("\x1b8") for text in shown[1:])  # what is typed is not drawn over
    line.wrote(b"a line\n")
    assert shown[-1] == "\r\x1b[K"
    shown.clear()
    await shown.until(lambda text: "running" in text)  # it has fallen silent again
    line.clear()
    assert shown[-1] == "\r\x1b[K"


async def test_an_unfinished_line_stays(shown: Shown) -> None:
    line = ProgressLine()
    line.phase("run")
    line.wrote(b"your name? ")
    line._draw_in_run()
    line.phase("copy out")
    line.clear()
    assert shown == []


async def test_the_background_has_no_line(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ProgressLine()
    line.phase("run")
    monkeypatch.setattr(progress_line, "is_background_job", lambda _: True)
    line._draw_in_run()
    line.clear()
    assert shown == []


async def test_a_program_with_a_terminal_of_its_own_has_no_line(shown: Shown) -> None:
    line = ProgressLine(program_has_terminal=True)
    line.phase("run")
    assert line._timer is None
    assert shown == []


async def test_behind_a_pipe_may_be_a_program_that_writes_to_the_terminal(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(progress_line, "_STDOUT", writer)
    monkeypatch.setattr(progress_line, "_is_pipe", is_pipe)
    try:
        line = ProgressLine()
    finally:
        os.close(reader)
        os.close(writer)
    line.phase("run")
    line.wrote(b"on standard error\n")
    assert line._timer is None
    assert shown == []


async def test_output_that_goes_to_the_terminal_is_noticed(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("run")
    noticed: list[bytes] = []
    streams = RunStreams(directory, capture=False)
    streams.on_terminal = noticed.append
    leader, terminal = os.openpty()
    before = os.dup(1)
    os.dup2(terminal, 1)
    try:
        task = MachineTask(("prog",), stdin=None)
        async with streams.open(task, lambda _: None, pytest.fail) as opened:
            opened.write("stdout", b"out\n")
            await opened.flush()
        assert os.read(leader, 100) == b"out\r\n"
    finally:
        os.dup2(before, 1)
        for descriptor in (leader, terminal, before):
            os.close(descriptor)
    assert noticed == [b"out\n"]
