"""`boincvm map`: runs a command once for each input, in machines of this host or of others."""

import argparse
import asyncio
import json
import shlex
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import BoincvmError, UsageError
from boincvm.guestlink.display import shown
from boincvm.guestlink.host_name import host_name
from boincvm.host.resources import processors
from boincvm.host.signals import TERMINATION_SIGNALS, block_signals, restore_signal_mask
from boincvm.image.store import Image, ImageStore
from boincvm.job.model import Job, MachineShape, MachineTask
from boincvm.job.sweep import Item, SweepCommand, expand_command, job_of_item, unsent_file
from boincvm.machine.admission import most_machines
from boincvm.machine.golden.background import make_in_background
from boincvm.machine.managed import ManagedMachine
from boincvm.machine.settings import Settings
from boincvm.machine.spec import machine_spec
from boincvm.machine.start_source import Boot, Clone, StartSource
from boincvm.machine.streams import OutputClosedError
from boincvm.runner.driver import open_driver_for
from boincvm.runner.interruption import Interruption
from boincvm.runner.loop import BOOT_HINT
from boincvm.runner.sweep import Sweep
from boincvm.runner.sweep_report import TextReport
from boincvm.runner.sweep_results import (
    ItemEnd,
    Resume,
    SweepResults,
    kept_results,
    temporary_results,
)
from boincvm.runner.sweep_worker import MachineWorker
from boincvm.standard_error import write_line

MOST_FAILURES = 100
"""The exit code is the number of failed items up to this one, and one more for more of them."""


class MapOptions(NamedTuple):
    """What the command line of `boincvm map` says beside the command and its inputs."""

    driver: str | None
    workers: int | None
    """None: as many as the host has processors for, and the preferences allow."""
    results: Path | None
    """None: nothing is kept."""
    resume: Resume
    keeps_order: bool
    is_json: bool
    is_quiet: bool
    shows_progress: bool
    """Whether a line on the terminal shows it."""


RunItems = Callable[[Sequence[Item], SweepResults, TextReport], Awaitable[None]]
"""Runs the items of a sweep. Raises BoincvmError for what ends it."""


def run_map(sweep: SweepCommand, arguments: argparse.Namespace, options: MapOptions) -> int:
    """Run `sweep` in machines of this host; return the exit code. Raises BoincvmError.

    `arguments`: the options that each item's job is made of (job/sweep.py).
    """
    job = job_of_item(arguments, sweep, sweep.items[0], "1")
    with ImageStore().open(job.machine.image) as image:
        return run_sweep(
            sweep, arguments, options, _OnThisHost(job, image, arguments, sweep, options).run
        )


def run_sweep(
    sweep: SweepCommand, arguments: argparse.Namespace, options: MapOptions, run_items: RunItems
) -> int:
    """Run the items that have yet to run, and report on them; return the exit code.

    `arguments`: like those of `run_map`. Raises BoincvmError.
    """
    # Signals wait until the event loop handles them, so that the machines are cleaned up.
    former = block_signals(TERMINATION_SIGNALS)
    try:
        with ExitStack() as stack:
            items, results = _open_results(sweep, options, stack)
            failures, code = asyncio.run(_run_reported(items, results, options, run_items))
            if not options.is_json:
                _report_unsent_file(arguments, sweep, failures)
            return code
    finally:
        restore_signal_mask(former)


def _open_results(
    sweep: SweepCommand, options: MapOptions, stack: ExitStack
) -> tuple[Sequence[Item], SweepResults]:
    """Return the items that have yet to run, and where their results go."""

    def text_of(item: Item) -> str:
        return shlex.join(expand_command(sweep.words, item))

    if options.results is None:
        return sweep.items, stack.enter_context(temporary_results(text_of))
    opened = kept_results(options.results, options.resume, sweep.items, text_of)
    results = stack.enter_context(opened)
    return [item for item in sweep.items if item.number not in results.ended_before], results


async def _run_reported(
    items: Sequence[Item], results: SweepResults, options: MapOptions, run_items: RunItems
) -> tuple[Sequence[ItemEnd], int]:
    """Return what failed, and the exit code. Raises BoincvmError."""
    report = TextReport(
        items,
        results,
        keeps_order=options.keeps_order,
        is_json=options.is_json,
        is_quiet=options.is_quiet,
        on_terminal=options.shows_progress,
    )
    failure: BoincvmError | None = None
    try:
        if results.lacks_earlier and not options.is_json and not options.is_quiet:
            report.note(f"no results to go on from in {shown(results.directory)}: all inputs run")
        if items:
            report.open()
            await run_items(items, results, report)
    except BoincvmError as error:
        failure = error
    finally:
        report.close()
    if not isinstance(failure, OutputClosedError):
        await report.finish()
    if failure is not None:
        raise failure
    code = min(len(report.failures), MOST_FAILURES + 1)
    if options.is_json:
        print(json.dumps({**report.summary(), "exit_code": code}))
    return report.failures, code


def _report_unsent_file(
    arguments: argparse.Namespace, sweep: SweepCommand, failures: Sequence[ItemEnd]
) -> None:
    """Tell once if a command that failed names a file which exists here and was not sent."""
    for end in failures[:MOST_FAILURES]:
        try:
            found = unsent_file(arguments, sweep, end.item)
        except UsageError:
            continue  # it was never run, and its own line says why
        if found is not None:
            name, value = found
            write_line(
                f"boincvm: {name!r} exists here, but was not sent to the machine\n"
                f"  send it with --input {value}"
            )
            return


class _OnThisHost:
    """Runs items in machines of this host."""

    def __init__(
        self,
        job: Job[MachineTask],
        image: Image,
        arguments: argparse.Namespace,
        sweep: SweepCommand,
        options: MapOptions,
    ) -> None:
        """Take `job`, that of the first item: all have the same machine and limits."""
        self._job = job
        self._image = image
        self._arguments = arguments
        self._sweep = sweep
        self._options = options

    async def run(self, items: Sequence[Item], results: SweepResults, report: TextReport) -> None:
        _, driver = await open_driver_for(self._job, self._image, self._options.driver)
        settings = Settings(self._job.limits, boot_hint=BOOT_HINT)

        def make_machine(directory: Path) -> tuple[ManagedMachine, Sequence[StartSource]]:
            spec = machine_spec(self._job.machine, self._image, directory)
            spec = spec._replace(ephemeral=True, host_name=host_name(self._job.name))
            return ManagedMachine(driver, spec, settings), [Clone(self._image), Boot()]

        def job_of(item: Item, slot: str) -> Job[MachineTask]:
            return job_of_item(self._arguments, self._sweep, item, slot)

        machine_workers = list[MachineWorker]()

        def make_worker(_slot: int) -> MachineWorker:
            machine_workers.append(MachineWorker(make_machine))
            return machine_workers[-1]

        sweep = Sweep(items, job_of, make_worker, results, report)
        workers = min(self._options.workers or _most_workers(self._job.machine), len(items))
        interruption = Interruption(sweep, self._job.limits.stop)
        try:
            await interruption.run(sweep.run(workers))
        finally:
            if any(worker.lacks_golden for worker in machine_workers):
                store = self._image.golden.parent
                make_in_background(self._job.machine, store, driver.name)


def _most_workers(shape: MachineShape) -> int:
    """Return how many machines of this shape the host has room for. Raises HostError."""
    return min(max(processors() // shape.cpus, 1), most_machines(shape.memory))
