"""A standalone run's machine, begun before there is an event loop: its boot is what takes long."""

from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic
from typing import NamedTuple, Self

from boincvm.errors import BoincvmError
from boincvm.guestlink.first_word import first_word
from boincvm.guestlink.host_name import host_name
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.qemu.acceleration import Verdict, known_verdict, probe
from boincvm.hypervisor.qemu.identity import identity
from boincvm.hypervisor.qemu.prestarted import BegunProcess
from boincvm.hypervisor.qemu.start_source import Boot, Cloned
from boincvm.image.store import ImageStore
from boincvm.job.model import Job
from boincvm.machine.golden.snapshots import Golden, find_golden
from boincvm.machine.golden.switch import is_wanted
from boincvm.machine.run_directory import run_directory
from boincvm.machine.spec import fresh_for, machine_spec


class Begun(NamedTuple):
    """A machine's beginning. at: when, by the monotonic clock. golden: of what it is a copy, and
    then its link has been sent the first word; cold_because: why it is none, where there is a
    snapshot. store: the images' directory."""

    at: float
    spec: MachineSpec
    accelerator: str
    process: BegunProcess
    golden: Golden | None
    cold_because: str
    store: Path


class HeadStart:
    """After the block the machine, its directory and the hold on its image are gone."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._stack = ExitStack()
        self._begun: Begun | None = None
        self._failure: BoincvmError | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                self._begun = _begin(self._job, stack)
            except BoincvmError as error:
                self._failure = error  # for `result`, where all failures of a run are told
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def result(self) -> Begun:
        """The beginning. Raises BoincvmError, what came of it instead."""
        if self._begun is None:
            raise self._failure or RuntimeError("there was no beginning")
        return self._begun


def _begin(job: Job, stack: ExitStack) -> Begun:
    at = monotonic()
    # First: whoever has nowhere to write shall hear just that.
    directory = stack.enter_context(run_directory())
    image = stack.enter_context(ImageStore().open(job.machine.image))
    accelerator = _verdict(image.kernel).accelerator
    spec = machine_spec(job.machine, image, directory)
    spec = spec._replace(ephemeral=True, host_name=host_name(job.name))
    golden, why = None, ""
    if is_wanted():
        golden, why = find_golden(image, spec, identity(accelerator))
    origin = Cloned(golden.directory) if golden else Boot()
    process = BegunProcess.start(spec, accelerator, origin)
    stack.callback(process.end)
    if golden is not None:
        with suppress(OSError):  # should QEMU be gone already, its monitor tells why
            process.link.sendall(first_word(job.limits.silence, fresh_for(spec)))
    return Begun(at, spec, accelerator, process, golden, why, image.golden.parent)


def _verdict(kernel: Path) -> Verdict:
    known = known_verdict(kernel)
    if known is None:
        import asyncio

        known = asyncio.run(probe(kernel))
    return known
