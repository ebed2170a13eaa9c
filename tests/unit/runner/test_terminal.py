"""What is typed into `boincvm run -t`, on its way to the guest."""

import asyncio
import os
from contextlib import ExitStack

import pytest

from boincvm.errors import BoincvmError
from boincvm.runner import terminal

pytestmark = [
    pytest.mark.timeout(30),
    pytest.mark.skipif(os.name == "nt", reason="there are no such pipes"),
]


async def test_pasted_text_is_whole_although_the_guest_reads_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pasted = b"0123456789abcde\n" * 20_000
    failures: list[BoincvmError] = []
    with ExitStack() as stack:
        keyboard, typist = os.pipe()
        stack.callback(os.close, keyboard)
        stack.callback(os.close, typist)
        monkeypatch.setattr(terminal, "KEYBOARD", keyboard)
        got = stack.enter_context(terminal._typed(failures.append))
        os.set_blocking(typist, False)
        await _write_all(typist, pasted)
        loop, arrived, is_whole = asyncio.get_running_loop(), bytearray(), asyncio.Event()

        def read() -> None:
            arrived.extend(os.read(got, 1 << 16))
            if len(arrived) >= len(pasted):
                is_whole.set()

        loop.add_reader(got, read)
        try:
            async with asyncio.timeout(10):
                await is_whole.wait()
        finally:
            loop.remove_reader(got)
    assert arrived == pasted
    assert failures == []


async def _write_all(descriptor: int, data: bytes) -> None:
    loop, rest, is_done = asyncio.get_running_loop(), bytearray(data), asyncio.Event()

    def write() -> None:
        del rest[: os.write(descriptor, rest)]
        if not rest:
            loop.remove_writer(descriptor)
            is_done.set()

    loop.add_writer(descriptor, write)
    async with asyncio.timeout(10):
        await is_done.wait()
