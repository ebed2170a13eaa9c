"""Programs in C and C++, compiled with the warnings of strict people."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE))

LIBRARY = HERE.parents[2] / "guest/libboinc"
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", "-pthread", f"-I{LIBRARY}")
COMPILERS = {"c": ("gcc", "-std=c99"), "cpp": ("g++", "-std=c++11")}


def compile_program(sources: list[Path], kind: str, program: Path) -> Path:
    """With the library; `kind` is the language that everything is compiled as."""
    language = "c++" if kind == "cpp" else "c"
    command = [*COMPILERS[kind], *STRICT, "-x", language, *sources, *sorted(LIBRARY.glob("*.c"))]
    done = subprocess.run(
        [*command, "-x", "none", "-lm", "-o", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture(scope="session", params=["c", "cpp"])
def upper_case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BOINC's example, as a C and as a C++ application."""
    kind: str = request.param
    program = tmp_path_factory.mktemp("upper_case") / kind
    return compile_program([HERE / f"upper_case.{kind}"], kind, program)


@pytest.fixture(scope="session", params=["c", "cpp"])
def calls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind: str = request.param
    program = tmp_path_factory.mktemp("calls") / kind
    return compile_program([HERE / "calls.c"], kind, program)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The working directory of a program."""
    work = tmp_path / "work"
    work.mkdir()
    return work
