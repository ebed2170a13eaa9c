"""Which drivers the conformance suite runs over.

Those of boincvm; or those that BOINCVM_TEST_DRIVERS names, with commas between: whoever writes a
driver installs it, with its entry point, and runs `BOINCVM_TEST_DRIVERS=NAME pytest
tests/hypervisor`. What a driver cannot do, by its own word, is skipped (docs/drivers.md).
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from benchmarks import libvirt_daemon

from boincvm.hypervisor.contract import Driver, DriverPackage, Machine, MachineSpec
from boincvm.hypervisor.registry import BUILT_IN, find_driver, open_driver
from boincvm.hypervisor.virtualbox.driver import VirtualBoxDriver
from support.driven import add_programs, runs_linux
from support.virtualbox.fixture import use_virtualbox
from support.virtualbox.golden import WITH_A_BOOT, StartsCopies, golden_machine
from support.vmware.fixture import vmware_installed

DRIVERS = [name for name in os.environ.get("BOINCVM_TEST_DRIVERS", "").split(",") if name]
_INTERPRETED = "virtualbox"
"""A boot takes a minute or two in the real VirtualBox's interpreter (support/virtualbox). So its
machines are copies of one that has booted, and what needs boots of its own, or computes for long,
is left to tests/vm/test_virtualbox.py."""
_BOOTS = (
    "test_every_verb_twice",
    "test_a_pause_before_the_guest_has_spoken",
    "test_what_it_uses",
    "test_a_disk_outlives_its_machine",
    "test_a_larger_disk",
    "test_the_network_card",
    "test_golden_snapshots",
    "test_nothing_runs_on",
    "test_its_verdict",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes too long with the real VirtualBox, and give the rest time to boot it."""
    left_out = [item for item in items if _boots_interpreted(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    for item in items:
        if _is_interpreted(item):
            # Before that of the module: the first mark counts.
            item.add_marker(pytest.mark.timeout(WITH_A_BOOT), append=False)


def _is_interpreted(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    return call is not None and call.params.get("package") == _INTERPRETED


def _boots_interpreted(item: pytest.Item) -> bool:
    return (
        _is_interpreted(item) and isinstance(item, pytest.Function) and item.originalname in _BOOTS
    )


_TESTED = DRIVERS or list(BUILT_IN)


@pytest.fixture(scope="session", autouse=True)
def own_libvirt() -> Iterator[None]:
    """A libvirt daemon of the tests' own, which begins before any test and serves them all."""
    if "libvirt" not in _TESTED:
        yield
        return
    with libvirt_daemon.running() as daemon, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOINCVM_LIBVIRT_URI", daemon.uri)
        yield


@pytest.fixture
def vmware() -> Iterator[None]:
    """The stand-in for VMware, which no machine here has."""
    with vmware_installed():
        yield


@pytest.fixture(params=_TESTED)
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> DriverPackage:
    if request.param == _INTERPRETED:
        use_virtualbox(monkeypatch)
    if request.param == "uml":
        request.getfixturevalue("uml_kernel")
    if request.param == "vmware":
        request.getfixturevalue("vmware")
    return find_driver(request.param)


@pytest.fixture
async def driver(package: DriverPackage, kernel: Path, tmp_path: Path) -> Driver:
    driver = await open_driver(package.name, kernel)
    add_programs(driver)
    if isinstance(driver, VirtualBoxDriver):
        spec = _small_machine(kernel.parent, tmp_path)
        return StartsCopies(driver, await golden_machine(driver, spec))
    return driver


@pytest.fixture
def linux(driver: Driver) -> Driver:
    """A driver whose guests are the image's Linux."""
    if not runs_linux(driver):
        pytest.skip("its guests are no Linux")
    return driver


@pytest.fixture
def spec_in(base_image: Path, tmp_path: Path) -> Callable[[str], MachineSpec]:
    """A small machine whose files lie in a new directory of that name."""

    def make(name: str) -> MachineSpec:
        directory = tmp_path / name
        directory.mkdir(mode=0o700)
        return _small_machine(base_image, directory)

    return make


def _small_machine(image: Path, directory: Path) -> MachineSpec:
    files = (image / "kernel", image / "initrd", image / "root.qcow2")
    return MachineSpec(directory, *files, memory=256 << 20, cpus=1)


@pytest.fixture
def spec(spec_in: Callable[[str], MachineSpec]) -> MachineSpec:
    return spec_in("a machine, its place: odd=yes")


@pytest.fixture
async def made() -> AsyncIterator[Callable[[Machine], Machine]]:
    """Machines that are destroyed after the test, whatever comes."""
    async with AsyncExitStack() as stack:

        def keep(machine: Machine) -> Machine:
            stack.push_async_callback(machine.destroy)
            return machine

        yield keep
