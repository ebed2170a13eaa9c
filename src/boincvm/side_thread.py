"""Work that blocks for long, and that nobody need wait for when the task is told to go."""

import asyncio
from collections.abc import Callable
from threading import Thread
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


async def in_side_thread(
    function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
) -> Result:
    """As asyncio.to_thread, but the process may end while the thread is at work.

    `function` must bear that as it bears a SIGKILL. Who cancels the wait leaves it alone.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Result] = loop.create_future()

    def conclude(result: Result | None, error: BaseException | None) -> None:
        if outcome.cancelled():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]  # a Result if there is no error

    def run() -> None:
        result: Result | None = None
        failure: BaseException | None = None
        try:
            result = function(*arguments, **options)
        except BaseException as error:
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(conclude, result, failure)

    Thread(target=run, name="boincvm-side", daemon=True).start()
    return await outcome
