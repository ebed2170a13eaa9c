"""What is begun is done to its end, even if the task that waits for it is cancelled."""

import asyncio

import pytest

from boincvm.hypervisor import uninterrupted as module
from boincvm.hypervisor.uninterrupted import uninterrupted

pytestmark = pytest.mark.timeout(30)


class Work:
    """Work that goes on when it may."""

    def __init__(self, error: Exception | None = None) -> None:
        self.may_end = asyncio.Event()
        self.is_done = False
        self._error = error

    async def run(self) -> str:
        await self.may_end.wait()
        self.is_done = True
        if self._error is not None:
            raise self._error
        return "done"


async def begun(work: Work) -> asyncio.Task[str]:
    waiting = asyncio.ensure_future(uninterrupted(work.run()))
    await asyncio.sleep(0)
    return waiting


async def test_its_result() -> None:
    work = Work()
    work.may_end.set()
    assert await uninterrupted(work.run()) == "done"


async def test_its_error() -> None:
    work = Work(ValueError("refused"))
    work.may_end.set()
    with pytest.raises(ValueError, match="refused"):
        await uninterrupted(work.run())


@pytest.mark.parametrize("error", [None, ValueError("refused")])
async def test_the_task_that_waits_is_cancelled(error: Exception | None) -> None:
    """Even twice; then the cancellation counts, and an error is its cause."""
    work = Work(error)
    waiting = await begun(work)
    for _ in range(2):
        waiting.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await waiting
    assert work.is_done
    assert cancelled.value.__cause__ is error


async def test_it_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 0.01)
    work = Work()
    waiting = await begun(work)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not work.is_done
