"""What tests of all kinds share."""

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import settings

from boincvm.host.inherited import reset_inherited_state
from boincvm.machine.golden.switch import SWITCH
from support.bench import Bench
from support.images import ready_image
from support.kernels import ready_kernel
from support.left_processes import none_left
from support.virtualbox.fixture import NOT_RUN

# The tests' programs begin as from a terminal, though the tests may not: `nohup make test &`.
reset_inherited_state()

# Machines start as users' machines do, from golden snapshots; none is made behind a test's back
# (`base_image` makes those that most tests use).
os.environ[SWITCH] = "existing"

# How long an example takes says something of the host alone.
settings.register_profile("boincvm", deadline=None)
settings.load_profile("boincvm")

HERE = Path(__file__).parent
OF_MACHINES = ("boinc", "hypervisor", "vm")
"""Directories of tests that start machines."""
WARMED = ((), ("--memory", "256M"), ("--balloon",))
"""Machines of these shapes start from golden snapshots; of another they boot."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have tests that compute run beside tests that wait, and those that take longest begin first.

    Each worker of pytest-xdist begins with as many tests as the others, in the order in which they
    stand here, and takes some of another's last ones when it has none left (`--dist worksteal`). So
    the last worker gets none of the tests of machines, and the others get them at the beginning.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long: dict[Path, list[pytest.Item]] = {}
    machines: dict[Path, list[pytest.Item]] = {}
    others: list[pytest.Item] = []
    for item in items:
        if item.get_closest_marker("first"):
            long.setdefault(item.path, []).append(item)
        elif item.path.relative_to(HERE).parts[0] in OF_MACHINES:
            machines.setdefault(item.path, []).append(item)
        else:
            others.append(item)
    computing = max(workers - 1, 1)
    size = len(items) // workers
    ordered: list[pytest.Item] = []
    for worker in range(computing):
        modules = [*[*long.values()][worker::computing], *[*machines.values()][worker::computing]]
        chunk = list(chain.from_iterable(modules))
        filling = max(size - len(chunk), 0)
        ordered += [*chunk, *others[:filling]]
        del others[:filling]
    items[:] = [*ordered, *others]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that were not run for want of the real VirtualBox, and nothing else."""
    skipped = terminalreporter.stats.get("skipped", [])
    names = [report.nodeid for report in skipped if NOT_RUN in str(report.longrepr)]
    if names:
        terminalreporter.section(f"not run: {NOT_RUN}")
        for name in names:
            terminalreporter.line(name)


@pytest.fixture(autouse=True)
def leaves_no_process() -> Iterator[None]:
    """End the processes that the test leaves running, which it may do only where it fails."""
    with none_left() as left:
        yield
    assert left == []


@pytest.fixture(scope="session")
def base_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the base image, which is built where it is missing or out of date, and so
    are its golden snapshots."""
    return ready_image(tmp_path_factory, "base", shapes=WARMED)


@pytest.fixture(scope="session")
def arm64_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an image for arm64, which is built where it is missing or out of date."""
    return ready_image(tmp_path_factory, "base-arm64", architecture="arm64")


@pytest.fixture(scope="session")
def small_kernel() -> Path:
    """Our own kernel for virtual machines, which takes minutes to build where it is missing."""
    return ready_kernel()


@pytest.fixture(scope="session")
def uml_kernel() -> Path:
    """Our own User-mode Linux, which the driver uses from then on; `make test` has built it."""
    return ready_kernel("--uml")


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines boot, though there are golden snapshots: the test is of the boot."""
    monkeypatch.setenv(SWITCH, "no")


@pytest.fixture
def kernel(base_image: Path) -> Path:
    """The base image's kernel."""
    return base_image / "kernel"


@pytest.fixture
def bench(base_image: Path, tmp_path: Path) -> Iterator[Bench]:
    """An empty place to run in; after the test nothing of any run may be left there."""
    bench = Bench(tmp_path / "bench")
    try:
        yield bench
        left = bench.left_overs()
    finally:
        bench.stop_all()
    assert left == []
