"""The report to the client once a second, from the states of the parts of a job."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from boincvm.boinc import Client, InitData, Status
from boincvm.job.boinc_settings import BoincSettings, CpuTimeSource
from boincvm.job.model import HostTask, Job, MachineShape, MachineTask, Task
from boincvm.wrapper.cpu_seconds import CpuSeconds
from boincvm.wrapper.report import ClientReport
from boincvm.wrapper.slot.progress import JobProgress
from boincvm.wrapper.tasks.resolve import JobContext
from boincvm.wrapper.tasks.sequence import TaskSequence
from boincvm.wrapper.tasks.step import Step

SETTINGS = BoincSettings(cpu_time_scale=2.0)


class Bench:
    """A report whose inputs are all set by the test."""

    def __init__(self, slot: Path, trickle_period: float | None = None) -> None:
        self.output: list[Status] = []
        self.trickles: list[tuple[str, str]] = []
        self.client = SimpleNamespace(
            slot=slot,
            report=self.output.append,
            has_taken_report=True,
            init_data=InitData(),
            send_trickle_up=lambda variety, text: self.trickles.append((variety, text)),
        )
        self.steps = SimpleNamespace(
            note_checkpoint=lambda: None,
            current=None,
            used=CpuSeconds(),
            operations=None,
            fraction_done=lambda: 0.5,
            resident=lambda: 0,
            is_suspended=False,
            has_network=True,
            waits_for_network=False,
        )
        self.progress = JobProgress(slot, 2, SETTINGS)
        self.report = ClientReport(
            cast(Client, self.client),
            cast(TaskSequence, self.steps),
            self.progress,
            trickle_period=trickle_period,
            graphics=False,
        )

    def runs(self, seconds: CpuSeconds) -> None:
        """Simulate a running task that has used this much."""
        self.steps.current = SimpleNamespace(process_id=123, seconds=lambda: seconds)

    def send(self) -> Status:
        self.report.send()
        return self.output[-1]


def test_between_tasks_and_in_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.send() == Status(0, 0, 0.5)
    bench.progress.task_done(0, CpuSeconds(1, 5, 9))
    bench.steps.used = bench.progress.checkpointed
    assert bench.send() == Status(2, 2, 0.5)
    bench.runs(CpuSeconds(3, 5, 9))
    bench.steps.resident = lambda: 4096
    bench.steps.operations = (1e9, 2e9)
    assert bench.send() == Status(8, 2, 0.5, 123, 4096, 1e9, 2e9)
    bench.progress.checkpoint(1, CpuSeconds(2, 4, 8))
    assert bench.send().checkpoint_cpu_time == 6


def test_a_checkpoint_that_is_just_found_is_in_the_same_report(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.runs(CpuSeconds(3, 3, 3))
    bench.steps.note_checkpoint = lambda: bench.progress.checkpoint(0, CpuSeconds(3, 3, 3))
    assert bench.send() == Status(6, 6, 0.5, 123)


def test_trickles_come_by_running_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, trickle_period=10)
    for wall, count in ((9.9, 0), (10.0, 1), (19.9, 1), (35.0, 2), (44.0, 2), (45.0, 3)):
        bench.runs(CpuSeconds(0, 0, wall))
        bench.send()
        assert len(bench.trickles) == count
    assert bench.trickles[0] == ("cpu_time", "<cpu_time>10.000000</cpu_time>")
    bench.progress.task_done(0, CpuSeconds(0, 0, 45.0))
    later = Bench(tmp_path, trickle_period=10)
    later.runs(CpuSeconds(0, 0, 9.0))
    later.send()
    assert later.trickles == []
    later.runs(CpuSeconds(0, 0, 10.0))
    later.send()
    assert later.trickles == [("cpu_time", "<cpu_time>55.000000</cpu_time>")]


@pytest.mark.parametrize(
    ("source", "seconds"),
    [(CpuTimeSource.GUEST, 2), (CpuTimeSource.HOST, 4), (CpuTimeSource.WALL, 6)],
)
def test_which_time_is_reported(source: CpuTimeSource, seconds: float) -> None:
    assert CpuSeconds(1, 2, 3).reported(source, 2.0) == seconds


def test_the_client_learns_who_waits_for_the_network(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert not bench.send().want_network
    bench.steps.waits_for_network = True
    assert bench.send().want_network


@pytest.mark.parametrize(
    ("machine", "has_network", "runs", "waits"),
    [
        (MachineShape(network=True), False, True, True),
        (MachineShape(network=True), True, True, False),
        (MachineShape(network=True), False, False, False),
        (MachineShape(), False, True, False),
        (None, False, True, False),
    ],
)
def test_a_machine_waits_for_the_network_that_the_client_suspends(
    tmp_path: Path, machine: MachineShape | None, has_network: bool, runs: bool, waits: bool
) -> None:
    task: Task = HostTask("app") if machine is None else MachineTask(("app",), machine="vm")
    job = Job((task,), tmp_path, {"vm": machine} if machine else {})
    steps = TaskSequence(
        job,
        BoincSettings(),
        cast(JobContext, None),
        None,
        JobProgress(tmp_path, 1, BoincSettings()),
        InitData(),
        use_tstp=False,
    )
    steps.has_network = has_network
    steps.current = cast(Step, SimpleNamespace()) if runs else None
    assert steps.waits_for_network is waits
