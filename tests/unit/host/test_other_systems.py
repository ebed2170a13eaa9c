"""What differs by operating system is in host/ alone, and all else imports on any of them."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from boincvm.errors import HostError, UnsupportedHostError
from boincvm.host.not_yet import not_yet

PACKAGE = Path(__file__).parents[3] / "src/boincvm"
HOST = PACKAGE / "host"
OF_ONE_SYSTEM = re.compile(r"_(posix|linux|macos|windows|unsupported)$")
RUNS_IN_GUESTS = {"client/terminal/remote.py"}
"""Programs whose text is sent to a guest, which is Linux; none of our modules imports them."""
NAMES_GUESTS_PATHS = {
    "client/terminal/remote.py", "hypervisor/uml/disks.py", "hypervisor/uml/sandbox.py",
    "image/initrd.py", "image/least_memory.py", "image/postinst_files.py", "redaction.py",
}  # fmt: skip
"""Modules that write of /proc/: of a guest's or a sandbox's, or (redaction) as a word that is the
same for all."""
MODULES = {
    "_posixsubprocess", "_winapi", "fcntl", "grp", "msvcrt", "posix", "pty", "pwd", "resource",
    "termios", "tty", "winreg",
}  # fmt: skip
FUNCTIONS = re.compile(
    r"os\.(O_\w+|SEEK_DATA|SEEK_HOLE|WNOHANG|PRIO_\w+|chroot|copy_file_range|fchmod|fork\w*|"
    r"get(e?[ug]id|pgrp|priority)|kill|killpg|memfd_create|mkfifo|nice|pidfd_open|pipe2|posix_\w+|p(read|write)v?|"
    r"sched_\w+|sendfile|set_blocking|setpriority|setsid|statvfs|sync|sysconf|tcgetpgrp)$"
    r"|signal\.(SIG(?!INT$|TERM$|_IGN$|_DFL$)\w+|pthread_sigmask|pidfd_send_signal)$"
    r"|select\.(poll|epoll|kqueue|POLL\w+|PIPE_BUF)$"
    r"|socket\.(AF_UNIX|SO_PEERCRED)$|asyncio\.(start|open)_unix_\w+$"
    r"|.*\.(create_unix_\w+|(add|remove)_signal_handler)$"
)


def sources() -> list[Path]:
    paths = [path for path in PACKAGE.rglob("*.py") if HOST not in path.parents]
    return sorted(path for path in paths if name_of(path) not in RUNS_IN_GUESTS)


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def of_one_system(tree: ast.AST) -> Iterator[str]:
    """What the module has that not every system has, each with its line."""
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found = [alias.name for alias in names if alias.name in MODULES]
            case ast.ImportFrom(module=str(module)) if module in MODULES:
                found = [module]
            case ast.ImportFrom(module="boincvm.host", names=names):
                found = [alias.name for alias in names if OF_ONE_SYSTEM.search(alias.name)]
            case ast.ImportFrom(module=str(module)) if OF_ONE_SYSTEM.search(module):
                found = [module]
            case ast.Attribute() if FUNCTIONS.match(ast.unparse(node)):
                found = [ast.unparse(node)]
            case ast.Constant(value=str(text)) if "/proc/" in text and id(node) not in texts:
                found = ["/proc/"]
            case _:
                continue
        yield from (f"{getattr(node, 'lineno', 0)}: {one}" for one in found)


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_what_one_system_has_is_used_in_host_alone(path: Path) -> None:
    found = list(of_one_system(ast.parse(path.read_text())))
    if name_of(path) in NAMES_GUESTS_PATHS:
        found = [one for one in found if not one.endswith("/proc/")]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "import fcntl",
        "import os, termios",
        "from pwd import getpwuid",
        "os.open('x', os.O_RDONLY)",
        "os.fork()",
        "os.pread(3, 1, 0)",
        "signal.SIGKILL",
        "signal.pthread_sigmask(1, ())",
        "open('/proc/self/stat')",
        "f'/proc/{pid}/stat'",
        "socket.socket(socket.AF_UNIX)",
        "select.poll()",
        "loop.create_unix_server(f)",
        "from boincvm.host import files_posix",
        "from boincvm.host.files_linux import open_descriptor",
        "loop.add_signal_handler(15, f)",
    ],
)
def test_it_is_found(text: str) -> None:
    assert list(of_one_system(ast.parse(text)))


@pytest.mark.parametrize(
    "text", ['"""What /proc/ says."""', "signal.SIGINT", "os.fsync(3)", "os.pipe()", "import os"]
)
def test_what_all_systems_have_is_not(text: str) -> None:
    assert not list(of_one_system(ast.parse(text)))


def test_each_part_has_a_face() -> None:
    """A new system is one file for each subject."""
    parts = [path.stem for path in HOST.glob("*.py") if OF_ONE_SYSTEM.search(path.stem)]
    faces = {OF_ONE_SYSTEM.sub("", part) for part in parts}
    assert len(faces) > 8
    assert [face for face in sorted(faces) if not (HOST / f"{face}.py").exists()] == ["supervisor"]
    assert (HOST / "supervised.py").exists()  # supervisor: a program, which this one starts


IMPORT_ALL = """
import importlib, os, pkgutil, re, select, signal, socket, sys
import ctypes
import boincvm

guests, of_another = set(sys.argv[1].split()), re.compile(sys.argv[2])
names = [
    module.name
    for module in pkgutil.walk_packages(boincvm.__path__, "boincvm.")
    if module.name not in guests
]
# What these bring in of the standard library and of others is not what is looked at.
for name in names:
    if not re.search(r"_(macos|windows)$", name):
        importlib.import_module(name)
for name in [name for name in sys.modules if name.partition(".")[0] == "boincvm"]:
    del sys.modules[name]

hidden = "_posixsubprocess fcntl grp pty pwd resource termios tty posix".split()
sys.modules.update(dict.fromkeys(hidden))
for module, lacking in {
    os: r"O_(?!RDONLY|WRONLY|RDWR|APPEND|CREAT|EXCL|TRUNC)|SEEK_(DATA|HOLE)|W[A-Z]|P_|PRIO_|SCHED_"
        r"|RTLD_|F_|posix_|sched_|fork|set(?!_inheritable|_handle)|get(e?[ug]id|pg|sid|pri|groups|res)|kill.|chroot|chown"
        r"|fch|lch|memfd|mkfifo|mknod|nice|pidfd|pipe2|pread|pwrite|readv|writev|sendfile|statvfs"
        r"|fstatvfs|sync$|sysconf|tc|uname|wait|copy_file|splice|eventfd|openpty|login_tty|confstr",
    signal: r"SIG(?!INT$|TERM$|ABRT$|FPE$|ILL$|SEGV$|_DFL$|_IGN$)|pthread|sigwait"
        r"|sigtimed|sigpending|pidfd|alarm|pause|setitimer|siginterrupt",
    socket: r"AF_UNIX$|SO_PEER|SCM_|CMSG|send_fds|recv_fds",
    select: r"poll|epoll|POLL|EPOLL|PIPE_BUF",
}.items():
    for name in dir(module):
        if re.match(lacking, name):
            delattr(module, name)
signal.SIGBREAK = signal.Signals(signal.SIGTERM)
os.O_BINARY, os.O_NOINHERIT = 0x8000, 0x80
load = ctypes.CDLL.__init__

def load_a_named_one(self, name, *others, **more):
    if name is None:
        raise TypeError("LoadLibrary() argument 1 must be str, not None")
    load(self, name, *others, **more)

ctypes.CDLL.__init__ = load_a_named_one
sys.platform = "win32"
failed = {}
for name in names:
    if not of_another.search(name):
        try:
            importlib.import_module(name)
        except BaseException as error:
            failed[name] = repr(error)
print(len(names), failed)
sys.stdout.flush()
os._exit(bool(failed))  # an ordinary exit needs what was hidden
"""


def test_every_module_imports_without_what_unix_has() -> None:
    """As on Windows, in so far as another system can show it."""
    guests = " ".join(f"boincvm.{name[:-3].replace('/', '.')}" for name in RUNS_IN_GUESTS)
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, guests, r"\.host\.\w+_(posix|linux|macos)$"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) > 300


@pytest.mark.parametrize(
    ("platform", "name"), [("win32", "Windows"), ("darwin", "macOS"), ("haiku1", "haiku1")]
)
def test_what_a_system_lacks_is_told_by_its_name(
    monkeypatch: pytest.MonkeyPatch, platform: str, name: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    error = not_yet("machines")
    assert isinstance(error, UnsupportedHostError)
    assert isinstance(error, HostError)
    assert error.message == f"not yet supported on {name}: machines"
    assert error.hint
