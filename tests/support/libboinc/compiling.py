"""Programs in C and C++, compiled with strict warnings."""

import fcntl
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from support import CHECKOUT

LIBRARY = CHECKOUT / "guest/libboinc"
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", "-pthread", f"-I{LIBRARY}")
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-O1")
"""An invalid memory access, or undefined arithmetic, ends the program."""
COMPILERS = {"c": ("gcc", "-std=c99"), "cpp": ("g++", "-std=c++11")}


def compile_program(
    tmp_path_factory: pytest.TempPathFactory,
    sources: list[Path],
    kind: str,
    program: Path,
    *,
    options: Sequence[str] = (),
) -> Path:
    """Compile with the library; `kind` is the language of all sources."""
    objects = _library(tmp_path_factory, kind, options)
    _compile([*sources, "-x", "none", *objects, "-o", program], kind, options)
    return program


def _library(
    tmp_path_factory: pytest.TempPathFactory, kind: str, options: Sequence[str]
) -> list[Path]:
    """Return the library's object files, compiled once for all workers of pytest-xdist."""
    name = hashlib.sha256(repr((kind, *options)).encode()).hexdigest()[:16]
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of the run
    directory = base / f"libboinc-{name}"
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            made = Path(tempfile.mkdtemp(dir=directory.parent))
            _compile(["-c", *sorted(LIBRARY.glob("*.c"))], kind, options, made)
            made.rename(directory)
    return sorted(directory.glob("*.o"))


def _compile(
    arguments: Sequence[str | Path],
    kind: str,
    options: Sequence[str],
    directory: Path | None = None,
) -> None:
    language = "c++" if kind == "cpp" else "c"
    done = subprocess.run(
        [*COMPILERS[kind], *STRICT, *options, "-x", language, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
