"""Runs a job whose machine is saved to disk, so that a later run goes on from there."""

import asyncio
import time
from contextlib import suppress
from typing import NamedTuple

from boincvm.durations import format_duration
from boincvm.errors import (
    BoincvmError,
    LimitError,
    ProgramStartError,
    UsageError,
    host_error,
)
from boincvm.guestlink.host_name import host_name
from boincvm.host.signals import TERMINATION_SIGNALS, block_signals, restore_signal_mask
from boincvm.hypervisor.contract import Driver, MachineSpec
from boincvm.image.store import Image, ImageStore
from boincvm.job.model import Job, MachineTask
from boincvm.machine.checkpoint_schedule import CheckpointSchedule
from boincvm.machine.checkpointing import Identity, write_checkpoint
from boincvm.machine.errors import SavedMachineError
from boincvm.machine.golden.background import make_in_background
from boincvm.machine.host_capacity import check_checkpoint_room
from boincvm.machine.managed import ManagedMachine
from boincvm.machine.saved_machine import (
    Found,
    SavedMachine,
    SavedTask,
    discard_machine,
    find_saved,
    remove_unneeded,
)
from boincvm.machine.settings import Settings
from boincvm.machine.spec import machine_spec
from boincvm.machine.start_source import Boot, Clone, Restore, StartSource
from boincvm.runner.driver import open_driver_for
from boincvm.runner.interruption import Interruption
from boincvm.runner.job_run import JobRun, Observer
from boincvm.runner.loop import BOOT_HINT, report_run
from boincvm.runner.resumable_jobs import ResumableJob
from boincvm.runner.streams import RunStreams
from boincvm.side_thread import in_side_thread
from boincvm.standard_error import write_line

SAVE_LIMIT = 120.0
"""Seconds that saving may take after a signal before the machine ends without it."""

_ENDINGS = (LimitError, ProgramStartError)
"""Errors with which a job has ended; after others it may go on from a checkpoint.

An output that cannot be written is one of the others: the user can make room for it.
"""


class ResumableOptions(NamedTuple):
    """What the command line says beside the job."""

    driver: str | None
    period: float
    """Seconds of running between two checkpoints."""
    json_output: bool
    show_progress: bool
    is_verbose: bool


class _NoProgramError(Exception):
    """The program ended just before the machine would have been saved.

    Or the next one had begun just then, and the guest has yet to start it.
    """


def run_resumable(stored: ResumableJob, job: Job[MachineTask], options: ResumableOptions) -> int:
    """Run `job`, or go on from its last checkpoint in `stored`; return the exit code.

    The job is removed from the disk when it has ended. Raises BoincvmError.
    """
    former = block_signals(TERMINATION_SIGNALS)
    try:
        if job.gpu is not None:
            raise UsageError(
                "found gpu in the job file of a resumable job, expected none",
                hint="the state of a graphics card cannot be saved: leave out gpu, or --resumable",
            )
        with _open_image(stored, job.machine.image) as image:
            code = asyncio.run(_ResumableRun(stored, job, image, options).run())
    except BaseException:
        if not stored.has_checkpoint:  # there is nothing to go on from
            stored.remove()
        raise
    finally:
        restore_signal_mask(former)
    if not stored.machine.exists():
        with suppress(OSError):  # the next change of the store removes it
            ImageStore().collect()  # this run has held the image until now
    return code


def _open_image(stored: ResumableJob, name: str) -> Image:
    """Open the image: what it was when the job was begun, if that can be resumed.

    Raises BoincvmError.
    """
    store = ImageStore()
    return store.open(name, store.kept_for(stored.machine) if stored.has_checkpoint else None)


class _ResumableRun:
    """One run of a job, either the first or one that goes on."""

    def __init__(
        self,
        stored: ResumableJob,
        job: Job[MachineTask],
        image: Image,
        options: ResumableOptions,
    ) -> None:
        self._stored = stored
        self._job = job
        self._image = image
        self._options = options
        self._streams = RunStreams(job.directory, capture=options.json_output)
        self._observer = Observer()
        self._schedule = CheckpointSchedule(options.period)
        self._machine: ManagedMachine | None = None
        self._job_run: JobRun | None = None
        self._saving: asyncio.Task[bool] | None = None
        self._turn = asyncio.Lock()  # held while the machine is saved and old files are removed
        self._is_interrupted = asyncio.Event()
        self._is_ending = False
        """Whether the program ended before its machine could be saved for the last time."""
        self._end_error: BaseException | None = None
        """What its end met with after a signal, which tells more than the signal."""
        self._has_ended = False
        """Whether the job itself has ended, so that nothing of it is kept."""

    async def run(self) -> int:
        line = None
        if self._options.show_progress:
            from boincvm.runner.progress_line import ProgressLine

            self._observer = line = ProgressLine()
            self._streams.on_terminal = line.wrote
        failure: BoincvmError | None = None
        try:
            await Interruption(self, None).run(self._work())
        except BoincvmError as error:
            cause = self._end_error
            failure = cause if isinstance(cause, BoincvmError) else error
        finally:
            if line is not None:
                line.clear()
        is_over = self._has_ended or isinstance(failure, _ENDINGS)
        if is_over:
            failure = failure if isinstance(failure, _ENDINGS) else None
        elif failure is not None:
            failure = self._with_advice(failure)
        if is_over or not self._stored.has_checkpoint:
            self._stored.remove()
        if self._job_run is None:
            raise failure or RuntimeError("nothing was run")
        return report_run(
            self._job_run, self._streams, failure, json_output=self._options.json_output
        )

    def _with_advice(self, failure: BoincvmError) -> BoincvmError:
        """Return `failure` with what it means for the job."""
        if isinstance(failure, SavedMachineError):
            return failure
        if not self._stored.has_checkpoint:
            message = f"{failure.message}; nothing of the job is kept"
            return BoincvmError(message, hint=failure.hint, exit_code=failure.exit_code)
        return BoincvmError(
            f"{failure.message}; the job is kept on disk",
            hint=f"continue it with boincvm run --resume {self._stored.name}",
            exit_code=failure.exit_code,
        )

    # The job.

    async def _work(self) -> None:
        if self._stored.has_checkpoint:
            self._observer.phase("check")
        found = await in_side_thread(find_saved, self._stored.machine)
        self._observer.clear()
        saved = self._usable(found)
        choice, driver = await open_driver_for(
            self._job, self._image, saved.driver if saved is not None else self._options.driver
        )
        if self._options.is_verbose and saved is None:
            write_line(f"boincvm: {choice}")
        if driver.saved_machines is None:
            raise UsageError(
                f"the driver {driver.name} cannot save machines, so the job could not be resumed",
                hint="leave --resumable out, or choose another driver; boincvm doctor lists them",
            )
        spec = machine_spec(self._job.machine, self._image, self._stored.machine)
        spec = spec._replace(host_name=host_name(self._job.name))
        sources = self._prepare(saved, spec)
        task = saved.task if saved is not None else None
        self._job_run = JobRun(self._job, self._streams, self._observer, saved=task)
        settings = Settings(self._job.limits, boot_hint=BOOT_HINT)
        self._machine = ManagedMachine(driver, spec, settings)
        await self._run_in(self._machine, self._job_run, sources)
        self._make_golden(driver)

    async def _run_in(
        self, machine: ManagedMachine, job_run: JobRun, sources: list[StartSource]
    ) -> None:
        """Run the job until it ends, or until its machine has been saved for the last time."""
        work = asyncio.ensure_future(job_run.run(machine, sources, keeps_files=lambda: True))
        checkpoints = asyncio.ensure_future(self._make_checkpoints())
        interrupted = asyncio.ensure_future(self._is_interrupted.wait())
        everything = (work, checkpoints, interrupted)
        try:
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            if self._saving is not None and await self._saving:
                return  # what the program was doing goes on another time
            if self._is_ending:
                await asyncio.wait((work,))  # its files come back
                self._end_error = work.exception()
            if work.done():
                work.result()
            elif checkpoints.done():
                checkpoints.result()
            self._has_ended = work.done()
        finally:
            for future in everything:
                future.cancel()
            await asyncio.gather(*everything, return_exceptions=True)

    def _usable(self, found: Found) -> SavedMachine | None:
        """Return the checkpoint to go on from, or None if there is none; tell which it is.

        Raises SavedMachineError if there is one that cannot be used.
        """
        for line in found.lost:
            write_line(f"boincvm: {line}")
        saved = found.saved
        if saved is None or saved.task is None or saved.task.number >= len(self._job.tasks):
            if self._stored.has_checkpoint:
                raise self._unusable("no checkpoint of it can be used")
            return None
        if saved.image != self._image.digest:
            raise self._unusable(f"the image {self._image.name} was rebuilt since then")
        if saved.shape != self._job.machine:
            raise self._unusable("its job file now describes a different machine")
        age = format_duration(float(max(round(time.time() - saved.made), 0)))
        if not self._options.json_output:
            write_line(f"boincvm: {self._stored.name} continues from its state of {age} ago")
        return saved

    def _unusable(self, why: str) -> SavedMachineError:
        return SavedMachineError(
            f"the job {self._stored.name} cannot be resumed: {why}",
            hint=f"remove it with boincvm run --discard {self._stored.name}, and start again",
        )

    def _prepare(self, saved: SavedMachine | None, spec: MachineSpec) -> list[StartSource]:
        """Prepare the machine's directory; return what the machine starts from."""
        if saved is not None:
            remove_unneeded(spec.directory, newest=saved.checkpoint.number)
            self._keep_image(spec)
            return [Restore(saved)]  # the job attaches its program, and wakes the machine
        discard_machine(spec.directory)
        spec.directory.mkdir(mode=0o700)
        self._keep_image(spec)
        return [Clone(self._image), Boot()]

    def _keep_image(self, spec: MachineSpec) -> None:
        """Have the store keep the image for later runs, whatever becomes of its name."""
        try:
            owner = f"the job {self._stored.name}"
            ImageStore().keep(self._image.digest, self._image.name, spec.directory, owner)
        except OSError as error:
            raise host_error("the job cannot be kept on disk", error) from error

    def _make_golden(self, driver: Driver) -> None:
        if self._machine is not None and self._machine.lacks_golden:
            make_in_background(self._job.machine, self._image.golden.parent, driver.name)

    # Checkpoints.

    def signal_program(self, number: int) -> bool:  # noqa: ARG002
        """Save the machine and end, at the first signal; return False if there is no machine."""
        if self._machine is None:
            return False
        if self._saving is None:
            self._machine.give_up_turn("the machine is saved for the last time")
            self._saving = asyncio.ensure_future(self._save_for_the_last_time())
            self._is_interrupted.set()
        return True

    async def _save_for_the_last_time(self) -> bool:
        """Save the machine and end it; tell whether that worked.

        If the job's programs have ended, there is nothing to save: their outputs come back first.
        """
        if self._job_run is not None and self._job_run.has_run:
            self._is_ending = True
            self._report_ending()
            return False
        self._observer.phase("save")
        try:
            async with asyncio.timeout(SAVE_LIMIT):
                return await self._save(last=True)
        except TimeoutError:
            write_line(f"boincvm: the machine could not be saved within {SAVE_LIMIT:g} s")
            return False
        except (BoincvmError, OSError) as error:
            write_line(f"boincvm: the machine could not be saved: {error}")
            return False

    def _report_ending(self) -> None:
        write_line(
            "boincvm: the program has ended, and its outputs are copied;"
            " another Ctrl-C ends that, too"
        )

    async def _make_checkpoints(self) -> None:
        """Make a checkpoint each period, for ever. One that cannot be made is reported."""
        while True:
            await self._schedule.due()
            try:
                await self._save(last=False)
            except (BoincvmError, OSError) as error:
                write_line(f"boincvm: no checkpoint was made: {error}")

    async def _save(self, *, last: bool) -> bool:
        """Save the machine if a program runs in it; tell whether that was done.

        With `last` it ends. Raises HypervisorError, GuestError, HostError, HostDiskFullError,
        OSError.
        """
        async with self._turn:
            return await self._save_in_turn(last=last)

    async def _save_in_turn(self, *, last: bool) -> bool:
        machine, run = self._machine, self._job_run
        if machine is None or run is None or run.state() is None or not machine.can_be_saved:
            return False
        directory = machine.spec.directory
        if not last:
            check_checkpoint_room(directory, machine.resident(), directory, 0.0)

        def state() -> tuple[SavedTask, None]:
            task = run.state()
            if task is None:
                raise _NoProgramError
            return task, None

        try:
            identity = Identity(self._image.digest, self._job.machine)
            await write_checkpoint(machine, identity, state, last=last)
        except _NoProgramError:
            await machine.go_on()
            if last and run.state() is not None:  # the next one has started
                return await self._save_in_turn(last=True)
            self._is_ending = last
            if last:
                self._report_ending()
            return False
        in_use = frozenset[str]() if last else machine.files_in_use()
        with suppress(OSError):  # the next one removes them
            await in_side_thread(remove_unneeded, directory, in_use=in_use)
        return True
