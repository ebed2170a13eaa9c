"""The programs of a folder, compiled from launcher/, and its manifest."""

import shutil
from pathlib import Path

from boincvm.errors import ImageBuildError
from boincvm.image.tools import run_tool

SOURCES = Path(__file__).parent / "launcher"
MANIFEST = "manifest"
MANIFEST_COMPILER = "musl-gcc"
"""Of the program that writes it, which runs on x86_64."""
_COMPILERS = {
    "musl-gcc": "musl-tools",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "x86_64-w64-mingw32-gcc": "gcc-mingw-w64-x86-64-win32",
}
_FOR_WINDOWS = ("-municode", "-Wl,--no-insert-timestamp")
"""Its main is `wmain`, and the same source makes the same program."""
_OPTIONS = ("-O2", "-Wall", "-Wextra", "-s", "-static")


def compiler_version(compiler: str) -> str:
    """Return what a compiler says it is. Raises ImageBuildError where it is missing."""
    if shutil.which(compiler) is None:
        raise ImageBuildError(
            f"the compiler of a folder's programs is not installed: {compiler}",
            hint=f"apt-get install --no-install-recommends {_COMPILERS[compiler]}",
        )
    return run_tool([compiler, "--version"]).decode().partition("\n")[0]


def linux_launcher(compiler: str, temporary: Path) -> Path:
    """Compile the program for Linux in `temporary`. Raises ImageBuildError."""
    return _compiled(compiler, "linux.c", temporary / "launcher")


def qemu_launcher(compiler: str, temporary: Path) -> Path:
    """Compile the program for a folder with QEMU in `temporary`. Raises ImageBuildError."""
    return _compiled(compiler, "qemu.c", temporary / "launcher")


def windows_launcher(temporary: Path) -> Path:
    """Compile the program for Windows in `temporary`. Raises ImageBuildError."""
    return _compiled(
        "x86_64-w64-mingw32-gcc", "windows.c", temporary / "launcher.exe", *_FOR_WINDOWS
    )


def windows_main_program(program: Path) -> None:
    """Compile the main program of an app version for Windows. Raises ImageBuildError."""
    _compiled("x86_64-w64-mingw32-gcc", "windows_main.c", program, *_FOR_WINDOWS)


def write_manifest(folder: Path, temporary: Path) -> None:
    """Write the list of the folder's files, which its programs check. Raises ImageBuildError."""
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    lister = _compiled(MANIFEST_COMPILER, "linux.c", temporary / "lister", "-DWRITE_MANIFEST")
    lines = run_tool([lister], stdin="".join(f"{name}\n" for name in names).encode(),
                     directory=folder)  # fmt: skip
    manifest = folder / MANIFEST
    manifest.write_bytes(lines)
    own = run_tool([lister], stdin=f"{MANIFEST}\n".encode(), directory=folder)
    manifest.write_bytes(lines + own.removesuffix(f" {MANIFEST}\n".encode()) + b"\n")


def _compiled(compiler: str, source: str, program: Path, *options: str) -> Path:
    run_tool([compiler, *_OPTIONS, *options, "-o", program, SOURCES / source])
    return program
