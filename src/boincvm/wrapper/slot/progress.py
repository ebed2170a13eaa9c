"""How far a job has come, on disk: what the next run of the wrapper begins with.

`wrapper_checkpoint.txt` is BOINC's own, so that the stock wrapper can go on with a job of ours
and the other way round; `boincvm_state.json` beside it says what that has no room for.
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
    """Keeps how far a job has come, as of the last task done or checkpoint made."""

    def __init__(self, slot: Path, tasks: int, settings: BoincSettings) -> None:
        """Read what an earlier run, of ours or of the stock wrapper, has left in the slot of a
        job with so many `tasks`."""
        self._slot = slot
        self._settings = settings
        restored = read_checkpoint(slot, tasks)
        if restored.fault:
            log(restored.fault)
        self.is_first_run = restored.is_new
        kept = read_state(slot)
        if kept is not None and self._agree(kept, restored.checkpoint):
            self._state = kept
        else:
            used = restored.checkpoint.cpu_time / settings.cpu_time_scale
            seconds = CpuSeconds(used, used, restored.checkpoint.elapsed)
            self._state = JobState(restored.checkpoint.tasks_done, 0, seconds)
        self._before = self._state.seconds

    def _agree(self, kept: JobState, checkpoint: Checkpoint) -> bool:
        """Whether nobody but we has gone on with the job since `kept` was written."""
        return kept.tasks_done == checkpoint.tasks_done and math.isclose(
            self.reported(kept.seconds), checkpoint.cpu_time, rel_tol=1e-9, abs_tol=1e-5
        )

    @property
    def tasks_done(self) -> int:
        return self._state.tasks_done

    @property
    def checkpointed(self) -> CpuSeconds:
        """What had been used at the last checkpoint, which a restart would not lose."""
        return self._state.seconds

    def total(self, used: CpuSeconds) -> CpuSeconds:
        """Add what the task that runs has used since it was started in this process."""
        return self._before.plus(used)

    def reported(self, seconds: CpuSeconds) -> float:
        """Tell which time of `seconds` the client is told."""
        return seconds.reported(self._settings.cpu_time, self._settings.cpu_time_scale)

    def begin_with(self, index: int) -> None:
        """Take note that tasks from `index` on are to be done, be it once more.

        Raises HostDiskFullError, HostError.
        """
        if index != self._state.tasks_done:
            self._write(self._state._replace(tasks_done=index))

    def note_first_run(self) -> None:
        """Take note that what is done only once has been done.

        Raises HostDiskFullError, HostError.
        """
        self._write(self._state)
        self.is_first_run = False

    def checkpoint(self, index: int, used: CpuSeconds) -> None:
        """Take note that task `index` can go on from here. Raises HostDiskFullError, HostError."""
        self._write(JobState(index, 0, self._before.plus(used)))

    def task_done(self, index: int, used: CpuSeconds) -> None:
        """Take note that task `index` is done for good. Raises HostDiskFullError, HostError."""
        self._write(JobState(index + 1, 0, self._before.plus(used)))
        self._before = self._state.seconds

    def count_failure(self) -> int:
        """Take note that a machine has failed; return how many have in succession."""
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
            raise error_of_system("the job's progress could not be kept", error) from error
        self._state = state
