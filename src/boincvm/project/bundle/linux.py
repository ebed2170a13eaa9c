"""The folder for Linux: Debian's Python with its own libraries and loader.

    boincvm-wrapper, boincvm, python    the same program, which goes by its name (launcher/linux.c)
    python._pth                         where this Python looks for modules, and nowhere else
    lib/boincvm                         the dynamic loader of the folder's glibc
    lib/python, lib/*.so.*              Python, and all libraries that it needs
    lib/python3.11/                     modules: Python's, boincvm's, qemu.qmp's

It carries its glibc, and so needs none of the host: only Linux 3.2 or later (on AArch64 3.7), which
that glibc asks for.
"""

import shutil
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from boincvm.errors import ImageBuildError
from boincvm.image.tools import run_tool
from boincvm.project.bundle.inputs import DebianPackage, InputCache, Inputs
from boincvm.project.bundle.launchers import linux_launcher
from boincvm.project.bundle.linux_platforms import X86_64, LinuxPlatform
from boincvm.project.bundle.python_files import add_boincvm, add_wheel, compile_modules

PROGRAMS = ("boincvm-wrapper", "boincvm", "python")
_LIBRARIES = (
    "libbz2.so.1.0", "libc.so.6", "libcrypto.so.3", "libexpat.so.1", "libffi.so.8",
    "libgcc_s.so.1", "liblzma.so.5", "libm.so.6", "libssl.so.3", "libz.so.1",
)  # fmt: skip
_MODULES = "lib/python3.11"
_PATHS = f"{_MODULES}\n{_MODULES}/lib-dynload\n"
"""Without such a file a pyvenv.cfg in the folder's parent would have Python read another one's."""
_UNUSED = (
    "EXTERNALLY-MANAGED", "LICENSE.txt", "__phello__", "_aix_support.py", "_osx_support.py",
    "_pydecimal.py", "_sysconfigdata__*", "antigravity.py", "asynchat.py", "asyncore.py",
    "config-*", "ctypes/macholib", "ctypes/test", "curses", "dbm", "distutils", "doctest.py",
    "ensurepip", "idlelib", "imaplib.py", "lib2to3", "mailbox.py", "msilib", "nntplib.py",
    "pdb.py", "pickletools.py", "poplib.py", "pydoc.py", "pydoc_data", "sitecustomize.py",
    "smtpd.py", "smtplib.py", "sqlite3", "telnetlib.py", "test", "this.py", "tkinter",
    "turtle.py", "turtledemo", "unittest", "venv", "wsgiref",
    *(f"lib-dynload/{name}.*.so" for name in (
        "_codecs_*", "_ctypes_test", "_crypt", "_curses*", "_dbm", "_lsprof", "_multibytecodec",
        "_sqlite3", "_test*", "_tkinter", "_xx*", "audioop", "nis", "ossaudiodev", "readline",
        "xx*",
    )),
)  # fmt: skip
"""What no module of boincvm can come to: tests, screens, databases, tools for programmers."""


def make_folder(
    platform: LinuxPlatform,
    folder: Path,
    pages: Path,
    inputs: Inputs,
    cache: InputCache,
    temporary: Path,
) -> None:
    """Fill `folder`, but for its manifest. `temporary`: a directory. Raises ImageBuildError."""
    qmp = cache.wheel(inputs.python_package("qemu.qmp"))
    root = temporary / "root"
    licences = folder / "licences"
    licences.mkdir(parents=True)
    unpack_packages(inputs.debian, cache, root)
    for package in inputs.debian:
        shutil.copyfile(licence_text(root, package.name), licences / f"{package.name}.txt")
    _lay_python(platform, folder, root)
    modules = folder / _MODULES
    add_boincvm(modules, pages)
    add_wheel(qmp, modules, licences)
    python = python_command(folder)
    if platform is not X86_64:
        python = compiling_python(inputs, cache, temporary / "compiler")
    compile_modules(python, modules)
    (folder / "python._pth").write_text(_PATHS)
    launcher = linux_launcher(platform.compiler, temporary)
    for name in PROGRAMS:
        shutil.copy(launcher, folder / name)


def unpack_packages(packages: Iterable[DebianPackage], cache: InputCache, root: Path) -> None:
    """Unpack packages of Debian into the directory `root`. Raises ImageBuildError."""
    for package in packages:
        run_tool(["dpkg-deb", "-x", cache.debian(package), root])


def compiling_python(inputs: Inputs, cache: InputCache, directory: Path) -> list[str | Path]:
    """Return the command of a Python that runs here, laid out in a new `directory`.

    The modules that it compiles are the same for every processor. Raises ImageBuildError.
    """
    directory.mkdir()
    folder, root = directory / "folder", directory / "root"
    unpack_packages(inputs.compiler, cache, root)
    _lay_python(X86_64, folder, root)
    return python_command(folder)


def _lay_python(platform: LinuxPlatform, folder: Path, root: Path) -> None:
    """Copy Python and its libraries from an unpacked `root` into `folder`."""
    libraries = folder / "lib"
    shutil.copytree(
        root / "usr/lib/python3.11", folder / _MODULES, ignore=_unused(root / "usr/lib/python3.11")
    )
    shutil.copy(root / "usr/bin/python3.11", libraries / "python")
    targets = {platform.loader: "boincvm", **{name: name for name in _LIBRARIES}}
    for name, target in targets.items():
        shutil.copy(find_library(platform, root, name), libraries / target)


def python_command(folder: Path) -> list[str | Path]:
    """Return the command that starts the Python of `folder` with the options that follow."""
    libraries = folder / "lib"
    return [
        *(libraries / "boincvm", "--argv0", folder / "python"),
        *("--library-path", libraries, libraries / "python"),
    ]


def is_unused(name: str) -> bool:
    """Tell whether the module at `name`, beneath Python's own modules, is left out."""
    parents = [name, *(parent.as_posix() for parent in PurePosixPath(name).parents)]
    return any(fnmatch(parent, pattern) for parent in parents for pattern in _UNUSED)


def _unused(top: Path) -> Callable[[str, list[str]], set[str]]:
    def names(directory: str, found: list[str]) -> set[str]:
        beneath = PurePosixPath(Path(directory).relative_to(top).as_posix())
        return {name for name in found if is_unused((beneath / name).as_posix())}

    return names


def find_library(platform: LinuxPlatform, root: Path, name: str) -> Path:
    """Return the path of a library beneath an unpacked `root`. Raises ImageBuildError."""
    for directory in ("lib", "usr/lib"):
        path = root / directory / platform.libraries / name
        if path.exists():
            return path
    raise ImageBuildError(f"Debian's packages lack {name}")


def licence_text(root: Path, package: str) -> Path:
    """Return what Debian says of a package's licence; several packages may share one text."""
    return (root / "usr/share/doc" / package / "copyright").resolve()
