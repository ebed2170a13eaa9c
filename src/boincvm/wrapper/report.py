"""What the client is told about a job once a second: progress, CPU time, memory, trickles."""

from boincvm.boinc import Client, Status
from boincvm.wrapper.slot.graphics_status import write_graphics_status
from boincvm.wrapper.slot.progress import JobProgress
from boincvm.wrapper.tasks.sequence import TaskSequence

TAKEN_LIMIT = 2.5
"""Seconds that the client has to read the last checkpoint's report; it reads once a second."""
TRICKLE_VARIETY = "cpu_time"
"""BOINC's wrapper's name for the message that `--trickle` requests; its value is elapsed time."""


class ClientReport:
    """Reports a job's state to the client.

    `trickle_period`: seconds of running time, None for no trickles. `graphics`: keep the file for a
    graphics program up to date.
    """

    def __init__(
        self,
        client: Client,
        steps: TaskSequence,
        progress: JobProgress,
        *,
        trickle_period: float | None,
        graphics: bool,
    ) -> None:
        self._client = client
        self._steps = steps
        self._progress = progress
        self._trickle_period = trickle_period
        self._graphics = graphics
        self._last_trickle = self._wall_before = progress.checkpointed.wall
        self._elapsed_before = client.init_data.elapsed_time
        self._checkpoint = self._read_checkpoint = progress.reported(progress.checkpointed)

    @property
    def has_unread_checkpoint(self) -> bool:
        """Tell whether the client has yet to read the checkpoint in the last report."""
        self._note_taken()
        return self._checkpoint != self._read_checkpoint

    async def hand_over_checkpoint(self) -> None:
        """Ensure that the client knows the last report's checkpoint when it starts us again.

        The client counts the running time up to a checkpoint that it hears of while we run; once we
        have ended it takes only the CPU time from what it finds. Raises OSError.
        """
        if not self.has_unread_checkpoint or await self._client.report_taken(TAKEN_LIMIT):
            return
        elapsed = self._elapsed_before + self._progress.checkpointed.wall - self._wall_before
        self._client.write_task_state(self._checkpoint, elapsed)

    def _note_taken(self) -> None:
        if self._client.has_taken_report:
            self._read_checkpoint = self._checkpoint

    def send(self) -> None:
        """Report the current state. Raises BoincvmError, OSError."""
        self._steps.note_checkpoint()
        step = self._steps.current
        total = self._progress.total(step.seconds()) if step else self._steps.used
        operations = self._steps.operations
        fraction = self._steps.fraction_done()
        self._note_taken()
        self._checkpoint = self._progress.reported(self._progress.checkpointed)
        self._client.report(
            Status(
                cpu_time=self._progress.reported(total),
                checkpoint_cpu_time=self._checkpoint,
                fraction_done=fraction,
                other_pid=step.process_id if step else None,
                resident=self._steps.resident() or None,
                floating_operations=operations[0] if operations else None,
                integer_operations=operations[1] if operations else None,
                want_network=self._steps.waits_for_network,
            )
        )
        if self._graphics:
            write_graphics_status(
                self._client.slot,
                cpu_time=self._progress.reported(total),
                elapsed_time=total.wall,
                fraction_done=fraction,
                suspended=self._steps.is_suspended,
                network_suspended=not self._steps.has_network,
            )
        period = self._trickle_period
        if period is not None and total.wall - self._last_trickle >= period:
            self._last_trickle = total.wall
            text = f"<cpu_time>{total.wall:f}</cpu_time>"
            self._client.send_trickle_up(TRICKLE_VARIETY, text)
