"""Work that goes on to its end although the task that waits for it is cancelled."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")
LIMIT = 60.0
"""Seconds that the work may take after that."""


async def uninterrupted(work: Coroutine[None, None, T]) -> T:
    """Return the result of `work`; if cancelled meanwhile, wait for its end before giving in.

    For what a hypervisor is told to do, and the record that it is done: if the one were without the
    other, a machine would not be as we believe that it is. Only a hypervisor that hangs ends the
    wait: then the work is cancelled, too.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            if cancelled is None:
                asyncio.get_running_loop().call_later(LIMIT, task.cancel)
            cancelled = error
    if cancelled is None:
        return task.result()
    raise cancelled from None if task.cancelled() else task.exception()
