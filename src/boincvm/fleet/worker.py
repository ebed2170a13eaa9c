"""Runs the items of a sweep in one machine of a controller.

Each item has a directory of its own beneath the machine's work directory, which is removed after
it: what else is in the machine stays as it is.
"""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from boincvm.client.client import Client, Table, error_of
from boincvm.client.copy import WAITS, get_path, put_path
from boincvm.client.run import End, InputFeeder, follow
from boincvm.errors import (
    BoincvmError,
    ControllerAwayError,
    GuestDiedError,
    HostDiskFullError,
    HostError,
    InputFileError,
    OutputFileError,
    UsageError,
    host_error,
)
from boincvm.exit_codes import ExitCode
from boincvm.fleet.commands import WholeOutput, end_in, run_ours
from boincvm.fleet.machines import present_machines
from boincvm.guestlink.display import shown
from boincvm.guestlink.get import all_of
from boincvm.guestlink.program import NO_INTERPRETER
from boincvm.host.file_names import is_storable
from boincvm.host.files import create_new, open_descriptor
from boincvm.job.files import check_program, own_program_hint
from boincvm.job.model import Job, MachineTask, OutputFile
from boincvm.machine.job_files import check_files
from boincvm.machine.output_destinations import Found, distinct
from boincvm.machine.output_patterns import (
    LIST_COMMAND,
    LIST_LIMIT,
    MOST_BYTES,
    listed_outputs,
)
from boincvm.machine.script_line import interpreter_of
from boincvm.runner.sweep_results import STDERR, STDOUT, ItemEnd, failed
from boincvm.runner.sweep_worker import WorkerLostError
from boincvm.side_thread import in_side_thread

_CANCEL_LIMIT = 20.0
"""Seconds in which an interrupted item removes what it has left in its machine."""
_STREAMS = (PurePosixPath(STDOUT), PurePosixPath(STDERR))


class FleetWorker:
    """The worker of one machine."""

    def __init__(self, client: Client, vm: str, directory: str) -> None:
        """Take the machine; `directory`: the sweep's own beneath its work directory."""
        self._client = client
        self._vm = vm
        self._directory = directory
        self._run: _ItemRun | None = None
        self._is_used = False

    def check(self, job: Job[MachineTask], results: Path, /) -> None:
        _check_texts(job)
        check_program(job)
        check_files(job.directory, job.inputs, ())
        check_files(results, (), job.outputs)

    async def prepare(self) -> None:
        if not await self._is_present():
            raise WorkerLostError(self._lost("it is not running any more"))

    async def _is_present(self) -> bool:
        return bool(await in_side_thread(present_machines, self._client, self._vm))

    def _lost(self, why: str) -> GuestDiedError:
        return GuestDiedError(f"the machine {self._vm} was lost: {why}", hint="boincvm ls")

    async def run(self, job: Job[MachineTask], end: ItemEnd, /) -> ItemEnd:
        end = end._replace(host=self._vm)
        self._is_used = True
        directory = f"{self._directory}/{end.item.number}"
        self._run = run = _ItemRun(self._client, self._vm, directory, job, end.directory)
        work = asyncio.ensure_future(in_side_thread(run.run))
        try:
            await asyncio.wait((work,))
            ended = work.result()
        except asyncio.CancelledError:
            try:
                async with asyncio.timeout(_CANCEL_LIMIT):
                    await in_side_thread(run.cancel)
                    await asyncio.wait((work,))
            except TimeoutError:  # the controller does not answer, and would not in `close` either
                self._is_used = False
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise
        except (ControllerAwayError, HostDiskFullError):
            raise
        except BoincvmError as error:
            if not isinstance(error, OutputFileError) and not await self._is_present():
                lost = self._lost(error.message)
                raise WorkerLostError(lost, failed(end, lost)) from error
            return failed(end, error)
        finally:
            self._run = None
        ended = _explained(ended, job)
        return end._replace(
            exit_code=ended.code,
            signal=ended.signal,
            message=ended.message if ended.is_ours or ended.signal else run.note,
            hint=ended.hint,
            sent=run.sent,
            received=run.received,
        )

    def signal_program(self, number: int, /) -> bool:
        return self._run is not None and self._run.signal(number)

    async def close(self) -> None:
        """Remove the sweep's directory from the machine. Idempotent."""
        if self._is_used:
            self._is_used = False
            with suppress(BoincvmError, TimeoutError):  # the machine or the controller has gone
                async with asyncio.timeout(_CANCEL_LIMIT):
                    await in_side_thread(
                        run_ours, self._client, self._vm, "", ["rm", "-rf", "--", self._directory]
                    )


def _explained(ended: End, job: Job[MachineTask]) -> End:
    """Add to an error of the guest's what the job tells of it."""
    task = job.tasks[0]
    if not ended.is_ours:
        return ended
    if ended.code == ExitCode.NO_SUCH_PROGRAM:
        return ended._replace(hint=own_program_hint(job, task) or ended.hint)
    if NO_INTERPRETER in ended.message:
        found = interpreter_of(task, job.directory, (*job.inputs, *task.inputs))
        if found is not None:
            message = f"{ended.message}, {found.name}"
            return ended._replace(message=message, hint=found.hint or ended.hint)
    return ended


def _check_texts(job: Job[MachineTask]) -> None:
    """Check that a controller can take all texts of `job`. Raises UsageError."""
    task = job.tasks[0]
    paths = [task.directory, *(item.destination for item in job.inputs)]
    paths += [output.source for output in job.outputs]
    words = [*task.argv, *task.environment, *task.environment.values(), *map(str, paths)]
    for word in words:
        if not _is_text(word):
            raise UsageError(
                f"found {os.fsencode(word)[:80]!r}, which is not UTF-8, expected UTF-8 with"
                " --selector",
                hint="rename it; without --selector such arguments and names can be used",
            )


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


class _ItemRun:
    """The run of one item; `run` blocks, and the other methods are called meanwhile."""

    def __init__(
        self, client: Client, vm: str, directory: str, job: Job[MachineTask], results: Path
    ) -> None:
        self._client = client
        self._vm = vm
        self._directory = directory
        self._job = job
        self._results = results
        self._command: str | None = None
        self._is_cancelled = threading.Event()
        self._turn = threading.Lock()
        self.sent = self.received = 0
        """Bytes of files."""
        self.note = ""
        """What the user should know although the program has succeeded, or beside its failure."""

    def run(self) -> End:
        """Send the inputs, run the program and fetch the outputs; return how it ended.

        Raises BoincvmError.
        """
        try:
            self._ours("mkdir", "-p", "--", self._directory)
            for item in self._job.inputs:
                self._put(item.source, item.destination)
            end = self._run_program()
            self._get_all(has_failed=end.code != 0)
        finally:
            with suppress(BoincvmError):  # the first error tells more
                run_ours(self._client, self._vm, "", ["rm", "-rf", "--", self._directory])
        return end

    def signal(self, number: int) -> bool:
        """Send a signal to the program; return False if it does not run."""
        with self._turn:
            command = self._command
        if command is None:
            return False
        # The controller may be slow to answer, and signals are handled at once.
        threading.Thread(target=self._signal, args=(command, number), daemon=True).start()
        return True

    def _signal(self, command: str, number: int) -> None:
        with suppress(BoincvmError):  # it has ended, or a second signal cancels it
            self._client.call("signal", id=command, signal=number)

    def cancel(self) -> None:
        """End the run as soon as possible; `run` then raises, after it has removed its files."""
        with self._turn:
            self._is_cancelled.set()
        self._cancel_command()

    def _cancel_command(self) -> None:
        with self._turn:
            command = self._command
        if command is not None:
            with suppress(BoincvmError):  # it has ended, or there is an error that tells more
                self._client.call("cancel", id=command)

    def _go_on(self) -> None:
        if self._is_cancelled.is_set():
            raise HostError("the item was interrupted")

    def _ours(self, *argv: str) -> bytes:
        self._go_on()
        return run_ours(self._client, self._vm, "", argv)

    # Files.

    def _path(self, path: PurePosixPath) -> str:
        return str(PurePosixPath(self._directory, path))

    def _put(self, source: Path, destination: PurePosixPath) -> None:
        moved, name = 0, self._path(destination)

        def progress(done: int, _size: int) -> None:
            nonlocal moved
            self._go_on()
            moved = done

        self._go_on()
        if destination.parent.parts:
            self._ours("mkdir", "-p", "--", str(PurePosixPath(name).parent))
        answer = put_path(self._client, self._vm, name, self._job.directory / source, progress)
        outcomes = answer.get("outcomes")
        outcome = outcomes.get(self._vm) if isinstance(outcomes, dict) else None
        if isinstance(outcome, dict) and "error" in outcome:
            raise error_of(outcome["error"])
        self.sent += moved

    def _get_all(self, *, has_failed: bool) -> None:
        missing = list[OutputFileError]()
        found = list[Found]()
        for output in self._job.outputs:
            with _noting(missing):
                items = self._matches(output) if output.is_pattern else [output]
                found += (Found(output, item) for item in items)
        items, clashes = distinct(found)
        missing += clashes
        for item in items:
            with _noting(missing):
                self._get(item)
        if missing and not has_failed:
            raise all_of(missing)
        self.note = "; ".join(error.message for error in missing)

    def _matches(self, output: OutputFile) -> list[OutputFile]:
        command = ["sh", "-c", LIST_COMMAND, "sh", str(output.source)]
        self._go_on()
        try:
            listed = run_ours(
                self._client, self._vm, self._directory, command, limit=LIST_LIMIT, most=MOST_BYTES
            )
        except OutputFileError as error:
            raise OutputFileError(
                f"output {shown(output.source)}: the list of what matches it is not whole",
                hint="name the directory that they are in",
            ) from error
        return listed_outputs(output, 0, listed, _STREAMS)

    def _get(self, output: OutputFile) -> None:
        moved = 0

        def progress(done: int, _size: int) -> None:
            nonlocal moved
            self._go_on()
            moved = done

        self._go_on()
        destination = self._results / output.destination
        if not _is_text(str(output.source)):
            raise OutputFileError(
                f"output {shown(output.source)} has a name that is not UTF-8",
                hint="give it another one, or name the directory that it is in",
            )
        if not all(map(is_storable, output.destination.parts)):
            raise OutputFileError(
                f"output {shown(output.destination)} is no name for a file of this host",
                hint="give it another one: --output PATH:DESTINATION",
            )
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            # An output that has come before may be, or have, a link.
            inside = destination.parent.resolve() == self._results.resolve().joinpath(
                output.destination.parent
            )
        except OSError as error:
            what = f"output {shown(output.destination)}"
            raise host_error(what, error, OutputFileError) from error
        if not inside or destination.is_dir():
            raise OutputFileError(
                f"output {shown(output.destination)}: another output is in its way",
                hint="give it a destination of its own: --output PATH:DESTINATION",
            )
        get_path(self._client, self._vm, self._path(output.source), destination, progress)
        self.received += moved

    # The program.

    def _run_program(self) -> End:
        task = self._job.tasks[0]
        where = PurePosixPath(self._directory, task.directory or "")
        self._go_on()
        with ExitStack() as stack:
            files = {
                name: stack.enter_context(_created(self._results / name))
                for name in (STDOUT, STDERR)
            }
            stdin = self._open_stdin(task, stack)
            begun, output = self._client.run(
                vms=self._vm,
                argv=list(task.argv),
                env=dict(task.environment),
                directory=str(where),
                timeout=task.time_limit,
                keep_input=stdin is not None,
            )
            with self._turn:
                self._command = str(begun["command"])
            feeder = None
            try:
                if stdin is not None:
                    feeder = InputFeeder(
                        self._client, self._command, stdin, on_failure=self._cancel_command
                    )
                    stack.enter_context(feeder)
                whole = WholeOutput(lambda stream, data: _write(files[stream], data))
                end = self._follow(self._command, output, whole, feeder)
            except (OutputFileError, HostDiskFullError):
                self._cancel_command()
                raise
            finally:
                with self._turn:
                    self._command = None
            if feeder is not None and feeder.failure is not None:
                raise _input_error(feeder.failure)
        if end.is_ours and end.code == ExitCode.GUEST_DIED:
            raise GuestDiedError(end.message, hint=end.hint)
        return end

    def _follow(
        self,
        command: str,
        output: Iterator[Table],
        whole: WholeOutput,
        feeder: InputFeeder | None,
    ) -> End:
        """Follow the program until it ends, also beyond a restart of the controller."""
        waits = iter(WAITS)
        while True:
            if self._is_cancelled.is_set() or (feeder is not None and feeder.failure is not None):
                self._cancel_command()
            total = whole.total
            try:
                return end_in(follow(output, whole), self._vm)
            except ControllerAwayError as error:
                if whole.total > total:
                    waits = iter(WAITS)
                wait = next(waits, None)
                # There is no notification when it is back.
                if wait is None or self._is_cancelled.wait(wait):
                    raise ControllerAwayError(
                        f"{error.message}; the program of the item may run on in {self._vm}",
                        hint=f"boincvm ps shows it as {command}",
                    ) from error
            output = self._client.output(command, begin=whole.seen)

    def _open_stdin(self, task: MachineTask, stack: ExitStack) -> int | None:
        if task.stdin is None or task.stdin == Path(os.devnull):
            return None
        try:
            descriptor = open_descriptor(self._job.directory / task.stdin, wait=False)
        except OSError as error:
            raise host_error(f"--stdin {shown(task.stdin)}", error, InputFileError) from error
        stack.callback(os.close, descriptor)
        return descriptor


@contextmanager
def _noting(missing: list[OutputFileError]) -> Iterator[None]:
    """Add what is wrong with an output in the block to `missing`; the others come back."""
    try:
        yield
    except OutputFileError as error:
        missing.append(error)
    except BoincvmError as error:
        if error.exit_code != ExitCode.OUTPUT_FILE:
            raise
        missing.append(OutputFileError(error.message, hint=error.hint))


def _input_error(error: BoincvmError | OSError) -> BoincvmError:
    what = "not all of --stdin could be sent to the program"
    if isinstance(error, OSError):
        return host_error(what, error, InputFileError)
    return InputFileError(f"{what}: {error.message}", hint=error.hint)


def _created(path: Path) -> BinaryIO:
    try:
        return create_new(path)
    except OSError as error:
        raise host_error(f"output {shown(path)}", error, OutputFileError) from error


def _write(file: BinaryIO, data: bytes) -> None:
    """Raises HostDiskFullError, OutputFileError."""
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        raise host_error("what the program prints", error, OutputFileError) from error
