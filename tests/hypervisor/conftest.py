"""Choose the drivers for which the conformance suite runs.

These are boincvm's own, or those in BOINCVM_TEST_DRIVERS, separated by commas: the author of a
driver installs it, with its entry point, and runs `BOINCVM_TEST_DRIVERS=NAME pytest
tests/hypervisor`. Capabilities that a driver does not declare are skipped (docs/drivers.md).
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from benchmarks import libvirt_daemon

from boincvm.hypervisor.architecture import kernel_architecture
from boincvm.hypervisor.contract import Driver, DriverPackage, Machine, MachineSpec
from boincvm.hypervisor.registry import BUILT_IN, find_driver, open_driver
from support.driven import add_programs, runs_linux
from support.virtualbox.fixture import use_virtualbox
from support.virtualbox.golden import WITH_A_BOOT, StartsCopies, golden_machine
from support.vmware.fixture import vmware_installed

DRIVERS = [name for name in os.environ.get("BOINCVM_TEST_DRIVERS", "").split(",") if name]
_INTERPRETED = "virtualbox"
"""A boot takes a minute or two in the real VirtualBox's interpreter (support/virtualbox). So its
machines are copies of one that has booted, and what needs boots of its own, or computes for long,
is left to tests/vm/virtualbox."""
_ARM64 = "qemu-aarch64"
"""QEMU with an image for arm64, under emulation. What differs from x86-64 is in a machine's boot,
its devices and its state; so here, too, machines are copies, and what only needs boots is left
out."""
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
_LEFT_OUT = {
    _INTERPRETED: _BOOTS,
    # Its guests have a network, a balloon and golden snapshots, and each takes a boot of seconds.
    _ARM64: (
        *(set(_BOOTS) - {"test_the_network_card", "test_golden_snapshots"}),
        "test_a_kill_at_each_step",  # the process is like that for x86-64
        "test_its_machines_can_do_what_it_says_and_nothing_else",  # for x86-64 that is
        "test_what_doctor_looks_at",
        "test_nothing_is_used_while_it_is_paused",
    ),
}
"""Names of tests, by variant."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that take too long for what they show, and give slow boots more time."""
    left_out = [item for item in items if _is_left_out(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    for item in items:
        if _variant(item) == _INTERPRETED:
            # Before that of the module: the first mark counts.
            item.add_marker(pytest.mark.timeout(WITH_A_BOOT), append=False)


def _variant(item: pytest.Item) -> str:
    call = getattr(item, "callspec", None)
    return str(call.params.get("variant", "")) if call is not None else ""


def _is_left_out(item: pytest.Item) -> bool:
    name = item.originalname if isinstance(item, pytest.Function) else ""
    return name in _LEFT_OUT.get(_variant(item), ())


_TESTED = DRIVERS or [*BUILT_IN, _ARM64]
"""Drivers, and variants of them."""


@pytest.fixture(scope="session", autouse=True)
def own_libvirt() -> Iterator[None]:
    """Run the tests' own libvirt daemon, which starts before any test and serves them all."""
    if "libvirt" not in _TESTED:
        yield
        return
    with libvirt_daemon.running() as daemon, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOINCVM_LIBVIRT_URI", daemon.uri)
        yield


@pytest.fixture
def vmware() -> Iterator[None]:
    """Use the stand-in for VMware, because no test machine has VMware."""
    with vmware_installed():
        yield


@pytest.fixture(params=_TESTED)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def package(
    variant: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> DriverPackage:
    if variant == _INTERPRETED:
        use_virtualbox(monkeypatch)
    if variant == "uml":
        request.getfixturevalue("uml_kernel")
    if variant == "vmware":
        request.getfixturevalue("vmware")
    return find_driver("qemu" if variant == _ARM64 else variant)


@pytest.fixture
def image(variant: str, request: pytest.FixtureRequest) -> Path:
    """Return the directory of the machines' image."""
    found = request.getfixturevalue("arm64_image" if variant == _ARM64 else "base_image")
    assert isinstance(found, Path)
    return found


@pytest.fixture
def kernel(image: Path) -> Path:
    return image / "kernel"


@pytest.fixture
async def driver(variant: str, package: DriverPackage, image: Path, tmp_path: Path) -> Driver:
    driver = await open_driver(package.name, image / "kernel")
    add_programs(driver)
    spec = _small_machine(image, tmp_path)
    if variant == _INTERPRETED:
        return StartsCopies(driver, await golden_machine(driver, spec))
    if variant == _ARM64:
        golden = await golden_machine(driver, spec, "base-arm64", balloon=False)
        return StartsCopies(driver, golden)
    return driver


@pytest.fixture
def linux(driver: Driver) -> Driver:
    """Return a driver whose guests run the image's Linux."""
    if not runs_linux(driver):
        pytest.skip("its guests are no Linux")
    return driver


@pytest.fixture
def spec_in(image: Path, tmp_path: Path) -> Callable[[str], MachineSpec]:
    """Return a small machine whose files are in a new directory with that name."""

    def make(name: str) -> MachineSpec:
        directory = tmp_path / name
        directory.mkdir(mode=0o700)
        return _small_machine(image, directory)

    return make


def _small_machine(image: Path, directory: Path) -> MachineSpec:
    files = (image / "kernel", image / "initrd", image / "root.qcow2")
    spec = MachineSpec(directory, *files, memory=256 << 20, cpus=1)
    return spec._replace(architecture=kernel_architecture(image / "kernel"))


@pytest.fixture
def spec(spec_in: Callable[[str], MachineSpec]) -> MachineSpec:
    return spec_in("a machine, its place: odd=yes")


@pytest.fixture
async def made() -> AsyncIterator[Callable[[Machine], Machine]]:
    """Yield a function that takes a machine, which is destroyed after the test in any case."""
    async with AsyncExitStack() as stack:

        def keep(machine: Machine) -> Machine:
            stack.push_async_callback(machine.destroy)
            return machine

        yield keep
