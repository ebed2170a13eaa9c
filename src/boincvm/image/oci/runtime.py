"""What a machine of a container needs beside the container's own files, which it does not touch.

Everything is in /usr/lib/boincvm: the agent and the Python that runs it, with its own C library, as
the container may have another one or none; and busybox. All of it is Debian's.

    agent.pyz, start.pyc        as in each image (image/agent_files.py)
    bin/                        busybox, its commands, and `python3`, a script
    runtime/bin, runtime/lib    Python, its library, and the libraries of both
    doc/PACKAGE/copyright       whose they are
"""

import re
from pathlib import Path

from boincvm.image.architectures import AMD64, ARM64, ImageArchitecture
from boincvm.image.bytecode import python_of
from boincvm.image.oci.commands import COMMANDS, DIRECTORY
from boincvm.image.postinst_files import HOSTS, busybox_commands
from boincvm.image.tree import Attributes, Tree

PACKAGES = (
    *("busybox-static", "gcc-12-base", "libbz2-1.0", "libc6", "libexpat1", "libgcc-s1", "liblzma5"),
    *("libpython3.11-minimal", "libpython3.11-stdlib", "python3.11", "python3.11-minimal"),
    "zlib1g",
)
"""Debian's packages of which something is in the image. No others are unpacked."""
_RUNTIME = f"{DIRECTORY}/runtime"
_LIBRARIES = {
    AMD64.name: ("usr/lib/x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
    ARM64.name: ("usr/lib/aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
}
"""Debian's directory of libraries, and the loader in it."""
_UNUSED = (
    *("ctypes", "curses", "dbm", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data"),
    *("sqlite3", "test", "tkinter", "turtledemo"),
)
"""Parts of Python's library that nothing of ours imports."""
_UNUSED_MODULE = re.compile(
    r"(_crypt|_ctypes|_curses|_dbm|_gdbm|_hashlib|_sqlite3|_ssl|_test|_uuid|_xx|nis|readline|xx).*"
)
"""Modules in C that nothing of ours imports, and that need the libraries of other packages."""
_MOUNT_POINTS = ("dev", "proc", "run", "sys")
_PROGRAM = Attributes(0o755)


def python_command(architecture: ImageArchitecture, python: str) -> str:
    """Return the command that starts our Python in the guest, whatever else is there."""
    loader = _LIBRARIES[architecture.name][1]
    libraries = f"{_RUNTIME}/lib"
    options = f"--inhibit-cache --library-path {libraries}"
    return f"{libraries}/{loader} {options} {_RUNTIME}/bin/{python}"


def add_runtime(tree: Tree, system: Tree, programs: Tree, architecture: ImageArchitecture) -> None:
    """Copy all of it from `system`, a tree of PACKAGES and their dependencies, into `tree`.

    `programs`: a tree with a busybox that runs here. Raises ImageBuildError, OSError.
    """
    tree.remove(_inside(DIRECTORY))
    python = python_of(system)
    libraries = _LIBRARIES[architecture.name][0]
    source = system.directory
    runtime, commands = _inside(_RUNTIME), _inside(COMMANDS)
    tree.copy_file(f"{runtime}/bin/{python}", source / "usr/bin" / python, _PROGRAM)
    for path in sorted((source / libraries).iterdir()):
        if ".so" in path.name and (path.is_symlink() or path.is_file()):
            _copy(tree, f"{runtime}/lib/{path.name}", path)
    library = source / "usr/lib" / python
    for name in system.names():
        if name.startswith(f"usr/lib/{python}/"):
            path = source / name
            inner = path.relative_to(library)
            is_unused = inner.parts[0] == "lib-dynload" and _UNUSED_MODULE.fullmatch(path.name)
            if inner.parts[0] not in _UNUSED and not is_unused:
                _copy(tree, f"{runtime}/lib/{python}/{inner.as_posix()}", path)
        elif name.startswith("usr/share/doc/") and name.endswith("/copyright"):
            package = name.split("/")[3]
            _copy(tree, f"{_inside(DIRECTORY)}/doc/{package}/copyright", source / name)
    tree.copy_file(f"{commands}/busybox", source / "usr/bin/busybox", _PROGRAM)
    for applet in busybox_commands(programs):
        tree.add_link(f"{commands}/{applet}", "busybox")
    script = f'#!{COMMANDS}/busybox sh\nexec {python_command(architecture, python)} "$@"\n'
    tree.add_file(f"{commands}/python3", script.encode(), _PROGRAM)


def _inside(path: str) -> str:
    return path.removeprefix("/")


def _copy(tree: Tree, name: str, path: Path) -> None:
    """Copy a file, or a link that stays in its directory."""
    if path.is_symlink():
        target = str(path.readlink())
        if "/" not in target:
            tree.add_link(name, target)
    elif path.is_file():
        executable = bool(path.stat().st_mode & 0o100)
        tree.copy_file(name, path, Attributes(0o755 if executable else 0o644))


def prepare(tree: Tree, working_directory: str) -> None:
    """Add what the agent finds in every system, and take away what stands in its way.

    A container gets some of that from the program that runs it, such as the directory in which its
    own command starts. Raises ImageBuildError, OSError.
    """
    for name in _MOUNT_POINTS:
        path = tree.directory / name
        if path.is_symlink() or not path.is_dir():
            tree.remove(name)
            tree.add_directory(name)
    for name, mode in (("tmp", 0o1777), ("root", 0o700), ("etc", 0o755), ("work", 0o755)):
        real = tree.followed(name)
        if not (tree.directory / real).is_dir():
            tree.remove(real)
            tree.add_directory(real, Attributes(mode))
    # The agent and the init script write these, and must not be led elsewhere by a link.
    for name, content in (("hosts", HOSTS), ("resolv.conf", b""), ("machine-id", b"")):
        path = tree.path(f"etc/{name}")
        if path.is_symlink() or not path.is_file() or not path.stat().st_size:
            tree.remove(f"etc/{name}")
            tree.add_file(f"etc/{name}", content)
    real = tree.followed(_inside(working_directory))
    if not (tree.directory / real).exists():
        tree.add_directory(real)
