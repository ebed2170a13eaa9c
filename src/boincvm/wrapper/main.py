"""`boincvm-wrapper`, which a BOINC client starts: from the slot's files to the exit status."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import boincvm
from boincvm.boinc import RETRY_DELAY, BoincExit, Client
from boincvm.boinc.exits import remove_end_files
from boincvm.boinc.init_data import InitDataError
from boincvm.errors import DISK_FULL, BoincvmError, HostError, InputFileError, JobFileError
from boincvm.host.files import read_regular
from boincvm.job.boinc_settings import BoincSettings
from boincvm.job.job_xml import LARGEST_JOB_FILE, Expansion, read_job_xml
from boincvm.job.macros import Macros
from boincvm.job.model import Job, MachineTask, Task
from boincvm.job.wrapper_arguments import WrapperArguments
from boincvm.redaction import hide
from boincvm.wrapper.log import log
from boincvm.wrapper.outcome import End, Finished, Left, Postponed, end_of
from boincvm.wrapper.report import ClientReport
from boincvm.wrapper.run import ClientRun
from boincvm.wrapper.signed_files import is_signed_content
from boincvm.wrapper.slot.progress import JobProgress
from boincvm.wrapper.slot.state import STATE_FILE
from boincvm.wrapper.tasks.resolve import JOB_FILE, JobContext
from boincvm.wrapper.tasks.sequence import TaskSequence
from boincvm.wrapper.visible_paths import VisiblePaths

if TYPE_CHECKING:
    from boincvm.wrapper.tasks.machines import JobMachines


def run_task(arguments: WrapperArguments) -> int:
    """Run the job in the working directory, a BOINC slot; return the exit status.

    Without init_data.xml the job runs standalone, as with BOINC's own wrapper.
    """
    return asyncio.run(_run(arguments))


async def _run(arguments: WrapperArguments) -> int:
    log(f"boincvm-wrapper {boincvm.__version__} starts")
    try:
        client = await Client.open()
    except InitDataError as error:
        log(error.message)
        return BoincExit.INIT_FAILURE
    except HostError as error:  # another process has the slot, or it cannot be locked
        return _postpone_without_slot(error)
    try:
        _hide_directories(client)
        if client.is_standalone:
            log(f"standalone: {client.standalone_reason}")
        end = await _run_job(client, arguments)
        _report_end(client, end)
        return end.status if isinstance(end, Finished | Left) else BoincExit.SUCCESS
    finally:
        client.close()


def _hide_directories(client: Client) -> None:
    """Show the volunteer's directories by BOINC's own names in all that the project reads."""
    data = client.init_data
    project = data.project_path
    if project is not None:
        hide(str(project), VisiblePaths(client.slot, project).project)
    hide(data.boinc_directory, "../..")


async def _run_job(client: Client, arguments: WrapperArguments) -> End:
    try:
        content = _read_job_file(client)
        expansion = Expansion(_macros(client, arguments), arguments)
        job, settings = read_job_xml(content, JOB_FILE, client.slot, expansion)
    except BoincvmError as error:
        return end_of(error, failures=1)
    for line in settings.ignored:
        log(line)
    remove_end_files(client.slot)  # of a task whose wrapper was killed
    context = _context(client, settings, content)
    progress = JobProgress(client.slot, len(job.tasks), settings)
    steps = TaskSequence(
        job,
        settings,
        context,
        _machines(job, context, client),
        progress,
        client.init_data,
        use_tstp=arguments.use_tstp,
    )
    report = ClientReport(
        client,
        steps,
        progress,
        trickle_period=arguments.trickle_period,
        graphics=settings.graphics,
    )
    end = await ClientRun(client, steps, progress, report).run()
    used = steps.used
    log(
        f"CPU time: guest {used.guest:.1f} s, host {used.host:.1f} s; wall time"
        f" {used.wall:.1f} s; reported: {progress.reported(used):.1f} s"
        f" ({settings.cpu_time.value} x {settings.cpu_time_scale:g})"
    )
    return end


def _machines(job: Job[Task], context: JobContext, client: Client) -> "JobMachines | None":
    if not any(isinstance(task, MachineTask) for task in job.tasks):
        return None
    from boincvm.wrapper.tasks.machines import JobMachines

    return JobMachines(job, context, client)


def _read_job_file(client: Client) -> bytes:
    path = client.resolve(JOB_FILE)
    try:
        content = read_regular(path, LARGEST_JOB_FILE + 1)
    except OSError as error:
        raise InputFileError(f"{JOB_FILE} cannot be read: {error.strerror}") from error
    if len(content) > LARGEST_JOB_FILE:
        raise JobFileError(f"{JOB_FILE} has more than {LARGEST_JOB_FILE} bytes")
    return content


def _macros(client: Client, arguments: WrapperArguments) -> Macros:
    """Return what the job file's macros stand for on the host."""
    project = client.init_data.project_path or client.slot
    device: int | None = client.init_data.gpu_device
    if client.init_data.gpu_device < 0:
        device = arguments.device
    return Macros(str(project), arguments.threads, str(client.slot), device)


def _context(client: Client, settings: BoincSettings, job_file: bytes) -> JobContext:
    # The client has checked the signatures of the app version's files: a job.xml among them may
    # start anything on the host, one that came with the workunit only what is signed itself.
    app_files = _app_files(client)
    return JobContext(
        slot=client.slot,
        project_directory=client.init_data.project_path or client.slot,
        resolve=client.resolve,
        environment=dict(os.environ),
        is_for_vmwrapper=settings.is_for_vmwrapper,
        app_files=app_files,
        signed=None if not app_files or is_signed_content(job_file, app_files) else app_files,
    )


def _app_files(client: Client) -> frozenset[Path]:
    directory = client.init_data.project_path
    if directory is None:
        return frozenset()
    names = client.init_data.app_files
    return frozenset(Path(os.path.realpath(directory / name)) for name in names)


def _report_end(client: Client, end: End) -> None:
    """Report the end: to the client by its files, to the project in stderr.txt.

    If the disk is full, our own state file is removed to make room: wrapper_checkpoint.txt says
    enough. If even that does not help, the client starts the task again: there is no false success.
    """
    match end:
        case Finished(status, message) if status:
            log(f"failed with {status}: {message}")
        case Postponed(delay, reason):
            log(f"to be tried again in {delay:g} s: {reason}")
        case Left(BoincExit.SUCCESS):
            log("the task ends for now; the client will start it again")
    try:
        try:
            _notify_client(client, end)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            (client.slot / STATE_FILE).unlink(missing_ok=True)
            _notify_client(client, end)
    except OSError as error:
        log(f"the client could not be notified: {error}")


def _notify_client(client: Client, end: End) -> None:
    match end:
        case Finished(status, message):
            client.finish(status, message)
        case Postponed(delay, reason, notice):
            client.temporary_exit(delay, f"boincvm: {reason}", notice=notice)
        case Left():
            client.leave()  # writes neither file, so that the client starts the task again


def _postpone_without_slot(error: HostError) -> int:
    from boincvm.boinc.exits import write_temporary_exit_file

    log(error.message)
    try:
        write_temporary_exit_file(Path.cwd(), RETRY_DELAY, error.message)
    except OSError as failure:
        log(f"the client could not be notified: {failure}")
    return BoincExit.SUCCESS
