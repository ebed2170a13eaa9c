"""A job's progress on disk, with which the next run of the wrapper begins.

`wrapper_checkpoint.txt` is BOINC's own, so that the stock wrapper can continue a job of ours and
vice versa; `boincvm_state.json` beside it holds what that format cannot.
"""

import math
from pathlib import Path

from boincvm.job.boinc_settings import BoincSettings
from boincvm.wrapper.cpu_seconds import CpuSeconds
from boincvm.wrapper.log import log
from boincvm.wrapper.outcome import error_of_system
from boincvm.wrapper.slot.state import JobState, read_state, write_state
from boincvm.wrapper.slot.wrapper_checkpoint import Checkpoint, read_checkpoint, write_checkpoint


class JobProgress:
    """Keeps the job's progress as of the last task done or checkpoint made."""

    def __init__(self, slot: Path, tasks: int, settings: BoincSettings) -> None:
        """Read what an earlier run, ours or the stock wrapper's, has left in the slot.

        `tasks`: how many tasks the job has.
        """
        self._slot = slot
        self._settings = settings
        restored = read_checkpoint(slot, tasks)
        if restored.fault:
            log(restored.fault)
        self.is_first_run = restored.is_new
        saved = read_state(slot)
        if saved is not None and self._agree(saved, restored.checkpoint):
            self._state = saved
        else:
            used = restored.checkpoint.cpu_time / settings.cpu_time_scale
            seconds = CpuSeconds(used, used, restored.checkpoint.elapsed)
            self._state = JobState(restored.checkpoint.tasks_done, 0, seconds)
        self._before = self._state.seconds

    def _agree(self, saved: JobState, checkpoint: Checkpoint) -> bool:
        """Tell whether nobody else has continued the job since `saved` was written."""
        return saved.tasks_done == checkpoint.tasks_done and math.isclose(
            self.reported(saved.seconds), checkpoint.cpu_time, rel_tol=1e-9, abs_tol=1e-5
        )

    @property
    def tasks_done(self) -> int:
        return self._state.tasks_done

    @property
    def checkpointed(self) -> CpuSeconds:
        """What had been used at the last checkpoint; a restart would not lose it."""
        return self._state.seconds

    def total(self, used: CpuSeconds) -> CpuSeconds:
        """Return the job's total; `used` is the running task's since its start in this process."""
        return self._before.plus(used)

    def reported(self, seconds: CpuSeconds) -> float:
        """Return the CPU time that the client is told."""
        return seconds.reported(self._settings.cpu_time, self._settings.cpu_time_scale)

    def begin_with(self, index: int) -> None:
        """Take note that the tasks from `index` on are to be done, possibly once more.

        Raises HostDiskFullError, HostError.
        """
        if index != self._state.tasks_done:
            self._write(self._state._replace(tasks_done=index))

    def note_first_run(self) -> None:
        """Take note that what is done only once per job has been done.

        Raises HostDiskFullError, HostError.
        """
        self._write(self._state)
        self.is_first_run = False

    def checkpoint(self, index: int, used: CpuSeconds) -> None:
        """Take note that task `index` can continue from here.

        Raises HostDiskFullError, HostError.
        """
        self._write(JobState(index, 0, self._before.plus(used)))

    def task_done(self, index: int, used: CpuSeconds) -> None:
        """Take note that task `index` is done for good. Raises HostDiskFullError, HostError."""
        self._write(JobState(index + 1, 0, self._before.plus(used)))
        self._before = self._state.seconds

    def count_failure(self) -> int:
        """Take note that a machine has failed; return the number of successive failures."""
        state = self._state
        self._state = JobState(state.tasks_done, state.failures + 1, state.seconds)
        try:
            write_state(self._slot, self._state)
        except OSError as error:  # the failure itself is what is reported
            log(f"boincvm_state.json could not be written: {error.strerror}")
        return self._state.failures

    def _write(self, state: JobState) -> None:
        cpu = self.reported(state.seconds)
        try:
            write_state(self._slot, state)
            write_checkpoint(self._slot, Checkpoint(state.tasks_done, cpu, state.seconds.wall))
        except OSError as error:
            raise error_of_system("the job's progress could not be saved", error) from error
        self._state = state
