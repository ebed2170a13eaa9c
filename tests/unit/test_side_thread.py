"""Work in a thread that can be abandoned."""

import asyncio
import subprocess
import sys
import threading

import pytest

from boincvm.side_thread import in_side_thread

LIMIT = 10.0


async def test_what_it_returns_and_raises() -> None:
    async with asyncio.timeout(LIMIT):
        assert await in_side_thread(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await in_side_thread(divmod, 7, 0)


async def test_who_does_not_wait_is_not_held_up() -> None:
    go = threading.Event()
    ended = threading.Event()

    def work() -> None:
        go.wait(LIMIT)
        ended.set()

    waiting = asyncio.ensure_future(in_side_thread(work))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not ended.is_set()
    go.set()
    assert await asyncio.to_thread(ended.wait, LIMIT)


def test_the_process_may_end_meanwhile() -> None:
    code = (
        "import asyncio, threading\nfrom boincvm.side_thread import in_side_thread\n"
        "async def main():\n"
        "    held = asyncio.ensure_future(in_side_thread(threading.Event().wait))\n"
        "    await asyncio.sleep(0)\n    held.cancel()\n"
        "asyncio.run(main())\nprint('ends')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=LIMIT, check=True
    )
    assert (done.stdout, done.stderr) == (b"ends\n", b"")
