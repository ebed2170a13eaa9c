"""The machine of an image's build: programs in it, and what ends them early."""

from pathlib import Path

import pytest

from boincvm.errors import GuestNeverBootedError, HypervisorKilledError, ImageBuildError
from boincvm.hypervisor.contract import EndCause, MachineSpec, MachineState
from boincvm.hypervisor.fake.driver import FakeDriver
from boincvm.hypervisor.fake.guest import FakeCall, FakeGuest
from boincvm.machine import build_machine
from boincvm.machine.build_machine import booted

pytestmark = pytest.mark.timeout(30)


async def prints(_: FakeGuest, call: FakeCall) -> int:
    call.write("stdout", call.environment[b"WORD"])
    call.write("stderr", b"and more")
    return 3


async def says_and_stays(guest: FakeGuest, call: FakeCall) -> int:
    call.write("stdout", b"too much")
    await call.signals.get()
    return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    driver = FakeDriver({"says": prints, "stays": says_and_stays})

    async def open_driver(_name: str, _kernel: Path | None) -> FakeDriver:
        return driver

    monkeypatch.setattr(build_machine, "open_driver", open_driver)
    return driver


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    nowhere = tmp_path / "none"
    return MachineSpec(tmp_path, nowhere, nowhere, nowhere, memory=1 << 28, cpus=1)


async def test_a_program_and_its_end(driver: FakeDriver, spec: MachineSpec) -> None:
    text: list[tuple[str, bytes]] = []
    async with booted(spec, 5.0) as run:
        end = await run(["says"], {"WORD": "hello"}, lambda *piece: text.append(piece))
    assert end.code == 3
    assert text == [("stdout", b"hello"), ("stderr", b"and more")]
    assert driver.machines[0].state is MachineState.DESTROYED


async def test_output_that_is_refused_ends_it(driver: FakeDriver, spec: MachineSpec) -> None:
    def refuse(_stream: str, _data: bytes) -> None:
        raise ImageBuildError("the configured packages are larger than an image may be")

    with pytest.raises(ImageBuildError, match="larger than an image"):
        async with booted(spec, 5.0) as run:
            await run(["stays"], {}, refuse)
    assert driver.machines[0].state is MachineState.DESTROYED


async def test_a_machine_that_ends_meanwhile_tells_why(
    driver: FakeDriver, spec: MachineSpec
) -> None:
    def end_it(_stream: str, _data: bytes) -> None:
        driver.machines[0].end(EndCause.KILLED, "signal 9")

    with pytest.raises(HypervisorKilledError, match="signal 9"):
        async with booted(spec, 5.0) as run:
            await run(["stays"], {}, end_it)


async def test_a_machine_that_does_not_boot(driver: FakeDriver, spec: MachineSpec) -> None:
    driver.boots = False
    with pytest.raises(GuestNeverBootedError, match=r"within 0\.2 s"):
        async with booted(spec, 0.2):
            pass
