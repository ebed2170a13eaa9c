"""Fixtures with programs that use the stand-in for libboinc."""

from pathlib import Path

import pytest

from support.libboinc.compiling import compile_program

HERE = Path(__file__).parent


@pytest.fixture(scope="session", params=["c", "cpp"])
def upper_case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile BOINC's example, as a C and as a C++ application."""
    kind: str = request.param
    program = tmp_path_factory.mktemp("upper_case") / kind
    return compile_program(tmp_path_factory, [HERE / f"upper_case.{kind}"], kind, program)


@pytest.fixture(scope="session", params=["c", "cpp"])
def calls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind: str = request.param
    program = tmp_path_factory.mktemp("calls") / kind
    return compile_program(tmp_path_factory, [HERE / "calls.c"], kind, program)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return the working directory of a program."""
    work = tmp_path / "work"
    work.mkdir()
    return work
