"""Runs a sweep: one job for each item, by workers that are kept from item to item."""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from time import monotonic
from typing import Protocol

from boincvm.errors import InputFileError, OutputFileError, ProgramStartError, UsageError
from boincvm.job.files import overlapping
from boincvm.job.model import Job, MachineTask
from boincvm.job.sweep import Item
from boincvm.runner.sweep_results import STDERR, STDOUT, ItemEnd, SweepResults, failed
from boincvm.runner.sweep_worker import Worker, WorkerLostError

JobOf = Callable[[Item, str], Job[MachineTask]]
"""Returns the job of an item for the worker of this number. Raises UsageError."""
MakeWorker = Callable[[int], Worker]
"""Returns the worker of this number, from 1."""


class SweepReport(Protocol):
    """Tells the user how a sweep proceeds."""

    def begin(self, item: Item) -> None:
        """Take note that the program of `item` begins."""

    async def end(self, end: ItemEnd) -> None:
        """Report how an item ended. Raises BoincvmError if nobody reads that."""

    def note(self, text: str) -> None:
        """Report what the user should know about the sweep."""


class Sweep:
    """Runs the jobs of `items`, at most one at a time by each worker."""

    def __init__(
        self,
        items: Iterable[Item],
        job_of: JobOf,
        make_worker: MakeWorker,
        results: SweepResults,
        report: SweepReport,
    ) -> None:
        self._items = deque(items)
        self._job_of = job_of
        self._make_worker = make_worker
        self._results = results
        self._report = report
        self._workers: dict[int, Worker] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._suspects: set[int] = set()
        """Items during which a machine was lost."""
        self._active = 0
        """Workers that still take items."""
        self._is_stopping = False

    async def run(self, workers: int) -> None:
        """Run all items with this number of `workers`.

        An item that fails is reported, and the others are run. Raises BoincvmError for what no
        other item could do without: a machine, room on the disk, a reader.
        """
        self._active = workers
        for slot in range(1, workers + 1):
            self._workers[slot] = self._make_worker(slot)
            self._tasks[slot] = asyncio.ensure_future(self._work(slot))
        tasks = list(self._tasks.values())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.result()
        finally:
            for task in tasks:
                # Only once: a second cancellation would interrupt the cleanup after the first.
                if not task.cancelling():
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def signal_program(self, number: int) -> bool:
        """Send the signal `number` to all running programs; no further item is begun.

        Workers without a running program end. Returns False if no program is running.
        """
        self._is_stopping = True
        is_any_running = False
        for slot, task in self._tasks.items():
            if self._workers[slot].signal_program(number):
                is_any_running = True
            elif not task.cancelling():
                task.cancel()
        return is_any_running

    async def _work(self, slot: int) -> None:
        worker = self._workers[slot]
        try:
            while self._items and not self._is_stopping:
                item = self._items.popleft()
                has_others = self._active > 1
                try:
                    await self._run_item(slot, item, worker)
                except WorkerLostError as error:
                    if error.end is not None and item.number in self._suspects:
                        await self._finish(error.end)  # it has lost two machines
                        continue
                    if not has_others:
                        raise error.cause from None
                    if error.end is not None:
                        self._suspects.add(item.number)
                    self._items.appendleft(item)
                    if self._active > 1:  # otherwise they have made room meanwhile
                        self._report.note(f"a machine was lost: {error.cause.message}")
                        return
                if not self._items:
                    # Only then does it count as done: meanwhile a worker that lacks room may rely
                    # on this one, and put its item back.
                    await worker.close()
        finally:
            self._active -= 1
            await worker.close()

    async def _run_item(self, slot: int, item: Item, worker: Worker) -> None:
        """Run one item and report its end, unless a signal has interrupted it."""
        directory = self._results.make_directory(item)
        end = ItemEnd(item, (), directory, began=time.time())
        begin = monotonic()
        try:
            job = _with_results(self._job_of(item, str(slot)))
            end = end._replace(command=job.tasks[0].argv)
            worker.check(job, directory)
        except (UsageError, InputFileError, OutputFileError, ProgramStartError) as error:
            end = failed(end, error)  # nobody needs a machine to know that
        else:
            await worker.prepare()
            self._report.begin(item)
            begin = monotonic()
            end = await worker.run(job, end)
        if not self._is_stopping:
            await self._finish(end._replace(seconds=monotonic() - begin))

    async def _finish(self, end: ItemEnd) -> None:
        self._results.record(end)
        await self._report.end(end)


def _with_results(job: Job[MachineTask]) -> Job[MachineTask]:
    """Return `job` with what its program prints among its results."""
    for output in job.outputs:
        streams = (PurePosixPath(STDOUT), PurePosixPath(STDERR))
        if not output.is_pattern and overlapping(output.destination, streams) is not None:
            raise UsageError(
                f"found --output {output.destination}, expected another name: what the program"
                " prints is in that file of its results",
                hint="let the program write to a file of another name",
            )
    tasks = (
        task._replace(
            stdin=Path(os.devnull) if task.stdin is None else job.directory / task.stdin,
            stdout=Path(STDOUT),
            stderr=Path(STDERR),
        )
        for task in job.tasks
    )
    return job._replace(tasks=tuple(tasks))
