"""Fixtures and hooks for tests of all kinds."""

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
from support.not_run import NOT_RUN

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
WARMED = ((), ("--memory", "256M"), ("--balloon",), ("--memory", "256M", "--controller"))
"""Machines of these shapes start from golden snapshots; of another they boot."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests that compute beside tests that wait, and start those that take longest first.

    Each worker of pytest-xdist starts with as many tests as the others, in this order, and takes
    some of another's last ones when it has none left (`--dist worksteal`). So the last worker
    gets none of the tests of machines, and the others get them at the beginning.
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
    """List the tests that were not run because a real part is not available, and nothing else."""
    skipped = terminalreporter.stats.get("skipped", [])
    found = [report for report in skipped if NOT_RUN in str(report.longrepr)]
    if found:
        terminalreporter.section(f"not run: a real part {NOT_RUN}")
        for report in found:
            terminalreporter.line(f"{report.nodeid}: {report.longrepr[2]}")


@pytest.fixture(autouse=True)
def leaves_no_process() -> Iterator[None]:
    """End the processes that the test leaves running, which it may do only if it fails."""
    with none_left() as left:
        yield
    assert left == []


@pytest.fixture(scope="session")
def base_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the base image; it and its golden snapshots are built if they are
    missing or out of date."""
    return ready_image(tmp_path_factory, "base", shapes=WARMED)


@pytest.fixture(scope="session")
def arm64_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of an arm64 image, which is built if it is missing or out of date."""
    return ready_image(tmp_path_factory, "base-arm64", architecture="arm64")


@pytest.fixture(scope="session")
def small_kernel() -> Path:
    """Return our own kernel for virtual machines, which takes minutes to build if it is missing."""
    return ready_kernel()


@pytest.fixture(scope="session")
def uml_kernel() -> Path:
    """Return our own User-mode Linux, which the driver then uses; `make test` has built it."""
    return ready_kernel("--uml")


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make machines boot although there are golden snapshots: the test is about the boot."""
    monkeypatch.setenv(SWITCH, "no")


@pytest.fixture
def kernel(base_image: Path) -> Path:
    """Return the base image's kernel."""
    return base_image / "kernel"


@pytest.fixture
def bench(base_image: Path, tmp_path: Path) -> Iterator[Bench]:
    """Yield an empty place to run in; after the test nothing of any run may be left there."""
    bench = Bench(tmp_path / "bench")
    try:
        yield bench
        left = bench.left_overs()
    finally:
        bench.stop_all()
    assert left == []
