"""A machine that does not boot leaves a screenshot, if it has a screen."""

import re
from pathlib import Path

import pytest

from boincvm.errors import GuestNeverBootedError, HypervisorError
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.fake.driver import FakeDriver, FakeMachine
from boincvm.job.model import Limits
from boincvm.machine.managed import ManagedMachine
from boincvm.machine.screenshot import keep_screenshot
from boincvm.machine.settings import Settings
from boincvm.machine.start_source import Boot
from boincvm.paths import cache_directory

pytestmark = pytest.mark.timeout(30)


class Camera:
    """Takes screenshots, or fails with `error`."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def take_screenshot(self, target: Path) -> None:
        if self.error is not None:
            raise self.error
        target.write_bytes(b"a picture")


class SilentDriver(FakeDriver):
    """A driver whose guests never answer."""

    def __init__(self, camera: Camera) -> None:
        super().__init__()
        self.camera = camera

    def machine(self, spec: MachineSpec) -> FakeMachine:
        machine = super().machine(spec)
        machine._boots = False
        machine.screenshots = self.camera
        return machine


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home of alice"))
    return tmp_path / "home of alice"


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    (tmp_path / "machine").mkdir()
    nowhere = tmp_path / "none"
    return MachineSpec(tmp_path / "machine", nowhere, nowhere, nowhere, memory=1 << 28, cpus=1)


async def why_it_did_not_boot(driver: FakeDriver, spec: MachineSpec) -> str:
    machine = ManagedMachine(driver, spec, Settings(Limits(boot=0.05)))
    with pytest.raises(GuestNeverBootedError) as caught:
        await machine.start([Boot()])
    await machine.close()
    return caught.value.message


async def test_the_error_names_the_picture(home: Path, spec: MachineSpec) -> None:
    """Its path is relative to the cache: the directory's own path may contain a user's name."""
    text = await why_it_did_not_boot(SilentDriver(Camera()), spec)
    named = re.search(r"its screen then: (screenshots/[0-9a-f-]+\.png) in boincvm's cache", text)
    assert named is not None, text
    assert (cache_directory() / named[1]).read_bytes() == b"a picture"
    assert "alice" not in text


@pytest.mark.parametrize("error", [HypervisorError("no screen"), OSError(28, "disk is full")])
async def test_a_picture_that_cannot_be_taken(
    home: Path, spec: MachineSpec, error: Exception
) -> None:
    """This is reported after the machine's own error."""
    text = await why_it_did_not_boot(SilentDriver(Camera(error)), spec)
    assert re.search(r"did not answer within .* no screenshot could be taken: ", text)
    assert "no screen" in text or "disk is full" in text


async def test_only_the_newest_pictures_are_kept(home: Path, spec: MachineSpec) -> None:
    machine = SilentDriver(Camera()).machine(spec)
    location = cache_directory() / "screenshots"
    text = [await keep_screenshot(machine)]
    (first,) = location.iterdir()
    first.rename(location / "20000101-000000-0000.png")
    text += [await keep_screenshot(machine) for _ in range(8)]
    assert len(list(location.iterdir())) == 8
    assert not (location / "20000101-000000-0000.png").exists()
    assert len(set(text)) == 9
