"""The QEMU driver's own lifecycle, and its probe, on a real machine."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import closing
from pathlib import Path, PurePosixPath
from time import monotonic

import pytest

from boincvm.bus.stomp import HEARTBEAT
from boincvm.errors import HypervisorError, LimitError
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import GuestProgram
from boincvm.guestlink.put import put_tree
from boincvm.host.processes import ChildProcess
from boincvm.hypervisor.contract import Checkpoint, EndCause, MachineSpec, MachineState
from boincvm.hypervisor.qemu import acceleration, trial
from boincvm.hypervisor.qemu.checkpoint import STEPS
from boincvm.hypervisor.qemu.driver import QemuDriver
from boincvm.hypervisor.qemu.machine import QemuMachine
from boincvm.hypervisor.qemu.start_source import FIRST_LAYER
from boincvm.hypervisor.qemu.target import AARCH64, X86_64, Target
from boincvm.machine.managed import opened
from support.booted import spec_in
from support.driven import answering, shell
from support.host_delays import host_delays

LIMIT = 60.0
"""Seconds for anything that a machine is waited for."""
pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def spec(base_image: Path, tmp_path: Path) -> MachineSpec:
    return spec_in(tmp_path / "machine, with a comma", base_image)


@pytest.fixture
async def machine(spec: MachineSpec) -> AsyncIterator[QemuMachine]:
    machine = QemuDriver("tcg").machine(spec)
    try:
        yield machine
    finally:
        await machine.destroy()
        assert list(spec.directory.iterdir()) == []


async def open_link(machine: QemuMachine) -> GuestLink:
    """Start the machine and wait for its agent."""
    link = await GuestLink.open(await machine.start(), silence_limit=1)
    async with asyncio.timeout(LIMIT):
        await link.ready
    return link


class Beats(asyncio.Protocol):
    """Receives everything that a guest sends, until there are more than three heartbeats."""

    def __init__(self) -> None:
        self.received = b""
        self.enough = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.close = transport.abort

    def data_received(self, data: bytes) -> None:
        self.received += data
        if len(self.received) >= 3 * len(HEARTBEAT):
            self.enough.set()


async def hears_beats(beats: Beats) -> None:
    """Check that a restored machine's agent does not reconnect but continues its heartbeats."""
    async with asyncio.timeout(LIMIT):
        await beats.enough.wait()
    assert beats.received == HEARTBEAT * (len(beats.received) // len(HEARTBEAT))


def state_of(machine: QemuMachine) -> MachineState:
    """Return the state; otherwise a type checker assumes that it is as last compared."""
    return machine.state


async def test_every_verb_twice(machine: QemuMachine, spec: MachineSpec) -> None:
    await machine.create()
    overlay = (spec.directory / FIRST_LAYER).read_bytes()
    await machine.create()
    assert (spec.directory / FIRST_LAYER).read_bytes() == overlay
    link = await open_link(machine)
    with pytest.raises(HypervisorError, match="already running"):
        await machine.start()
    for _ in range(2):
        await machine.pause()
        assert state_of(machine) is MachineState.PAUSED
    with pytest.raises(HypervisorError, match="already running"):
        await machine.start()
    for _ in range(2):
        await machine.resume()
        assert state_of(machine) is MachineState.RUNNING
    ended = asyncio.ensure_future(machine.ended())
    for _ in range(2):
        await machine.save(1)
        assert state_of(machine) is MachineState.SAVED
    assert (await ended).cause is EndCause.ASKED
    assert machine.process_ids() == ()
    link.close()
    # A guest whose link hangs up turns itself off, so the link is closed after the machine.
    channel = await machine.start()
    with closing(await channel.connect(Beats)) as beats:
        assert state_of(machine) is MachineState.PAUSED  # until its guest has been told
        await machine.resume()
        assert state_of(machine) is MachineState.RUNNING
        await hears_beats(beats)
        await machine.save(3)  # a second time
    channel = await machine.start()
    with closing(await channel.connect(Beats)) as beats:
        await machine.resume()
        await hears_beats(beats)
        for _ in range(2):
            await machine.stop()
            assert state_of(machine) is MachineState.STOPPED
    for _ in range(2):
        await machine.destroy()
        assert state_of(machine) is MachineState.DESTROYED
    with pytest.raises(HypervisorError, match="was destroyed"):
        await machine.start()


async def test_verbs_that_a_machine_is_not_ready_for(machine: QemuMachine) -> None:
    await machine.create()
    await machine.stop()
    for work in (machine.pause(), machine.resume(), machine.save(1)):
        with pytest.raises(HypervisorError, match="not running"):
            await work
    with pytest.raises(HypervisorError, match="never started"):
        await machine.ended()


async def test_a_machine_that_dies_while_it_is_saved(machine: QemuMachine) -> None:
    link = await open_link(machine)
    (pid,) = machine.process_ids()
    os.kill(pid, signal.SIGSTOP)
    saving = asyncio.ensure_future(machine.save(1))
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(HypervisorError):
        async with asyncio.timeout(LIMIT):
            await saving
    end = await machine.ended()
    assert (end.cause, end.detail) == (EndCause.KILLED, "signal 9 ended QEMU")
    link.close()


async def test_a_qemu_that_refuses_to_start(spec: MachineSpec) -> None:
    (spec.directory / "kernel").write_bytes(b"not a kernel")
    broken = MachineSpec(
        spec.directory, spec.directory / "kernel", spec.initrd, spec.root, 1 << 28, 1
    )
    machine = QemuDriver("tcg").machine(broken)
    with pytest.raises(HypervisorError, match=r"QEMU did not start: .*kernel"):
        await machine.start()
    await machine.destroy()
    assert [path.name for path in spec.directory.iterdir()] == ["kernel"]


async def test_inputs_that_do_not_fit_in_the_guest(spec: MachineSpec, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(os.urandom(200_000))
    (tmp_path / "large").write_bytes(os.urandom(40 << 20))
    async with opened(QemuDriver("tcg"), spec) as managed:
        session = managed.session
        fill = "fallocate -l $(($(stat -f -c %a*%S /work) - 100000)) fill"
        program = GuestProgram(
            session.link,
            ["/bin/sh", "-c", fill],
            directory="/work",
            environment={"PATH": "/usr/bin:/bin"},
            output=lambda *_: None,
        )
        program.end_input()
        async with asyncio.timeout(LIMIT):
            assert (await session.guard(program.wait())).code == 0
            for name in ("small", "large"):  # by frames, and by the transfer disk
                put = put_tree(
                    session.link,
                    session.transfer_disk,
                    Path(name),
                    PurePosixPath(name),
                    directory=tmp_path,
                )
                with pytest.raises(LimitError, match="the inputs do not fit") as failure:
                    await session.guard(put)
                assert failure.value.exit_code == 196


async def test_the_probe_tells_what_works_here(
    kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path))
    with host_delays() as delays:
        begin = monotonic()
        verdict = await acceleration.probe(kernel)
        seconds = monotonic() - begin
    assert seconds - delays.seconds < 3
    assert verdict.accelerator in ("kvm", "tcg")
    assert verdict.reason
    again = await acceleration.probe(kernel)
    if verdict.seconds:  # it was really tried
        assert again.cached
        assert not (await acceleration.probe(kernel, refresh=True)).cached
    assert (again.accelerator, again.reason) == (verdict.accelerator, verdict.reason)


async def test_the_probe_does_not_outlast_a_kernel_that_hangs(
    kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(*_: object) -> list[str]:
        return ["sleep", "1000"]

    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path))
    monkeypatch.setattr(trial, "trial_command", hang)
    monkeypatch.setattr(acceleration, "_why_not_even_tried", lambda *_: "")
    with host_delays() as delays:
        verdict = await acceleration.probe(kernel)
    assert verdict.accelerator == "tcg"
    assert "did not boot under it within 2.5 s" in verdict.reason
    assert verdict.seconds - delays.seconds < 3


async def test_the_probes_guest_reports_where_kernels_boot(kernel: Path, tmp_path: Path) -> None:
    assert await reports(kernel, X86_64, tmp_path)


async def test_so_it_does_on_aarch64(arm64_image: Path, tmp_path: Path) -> None:
    assert await reports(arm64_image / "kernel", AARCH64, tmp_path)


async def reports(kernel: Path, target: Target, directory: Path) -> bool:
    """Tell whether the probe's guest runs under emulation, and says so."""
    (directory / "initrd").write_bytes(trial.trial_initrd(target))
    command = trial.trial_command("tcg", kernel, str(directory / "initrd"), target)
    with (directory / "log").open("w+b") as log:
        process = ChildProcess(command, directory=directory, stdout=log.fileno(), stderr=log)
        try:
            async with asyncio.timeout(LIMIT):
                status = await process.wait()
        finally:
            process.kill()
            await process.wait()
        log.seek(0)
        return trial.has_run(status, log.read(), target)


async def test_a_checkpoint_that_is_cancelled_at_any_step(
    machine: QemuMachine, spec: MachineSpec
) -> None:
    """The guest runs on, with the disk that it writes to; so it does if the last one fails late."""
    async with answering(machine) as link:
        for number, step in enumerate(STEPS, 1):
            await _cancelled(machine, machine.checkpoint(number), step)
            done = await shell(link, f"echo {step} >>/root/file; sync; echo alive")
            assert done == "alive\n", step
        await _cancelled(machine, machine.save(8), "memory sent")
        assert await shell(link, "echo alive") == "alive\n"
        machine._on_step = lambda _: None
        await link.quiesce(LIMIT)
        state = link.state()
        last = await machine.save(9)
    restored = QemuDriver("tcg").restore(spec, last)
    async with answering(restored, state) as link:
        await link.attach(LIMIT, let_run=restored.resume)
        assert await shell(link, "cat /root/file") == "".join(f"{step}\n" for step in STEPS)
    await restored.stop()


async def _cancelled(
    machine: QemuMachine, saving: Coroutine[None, None, Checkpoint], step: str
) -> None:
    """Save the machine, and be cancelled as soon as that step is done."""
    task = asyncio.ensure_future(saving)

    def passed(done: str) -> None:
        if done == step:
            task.cancel()

    machine._on_step = passed
    await asyncio.wait((task,), timeout=LIMIT)
    assert task.cancelled(), step
