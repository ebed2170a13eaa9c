"""Programs in C and C++, compiled with strict warnings."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from support import CHECKOUT

LIBRARY = CHECKOUT / "guest/libboinc"
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", "-pthread", f"-I{LIBRARY}")
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-O1")
"""An invalid memory access, or undefined arithmetic, ends the program."""
COMPILERS = {"c": ("gcc", "-std=c99"), "cpp": ("g++", "-std=c++11")}


def compile_program(
    sources: list[Path], kind: str, program: Path, *, options: Sequence[str] = ()
) -> Path:
    """Compile with the library; `kind` is the language of all sources."""
    language = "c++" if kind == "cpp" else "c"
    command = [*COMPILERS[kind], *STRICT, "-x", language, *sources, *sorted(LIBRARY.glob("*.c"))]
    done = subprocess.run(
        [*command, *options, "-o", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return program
