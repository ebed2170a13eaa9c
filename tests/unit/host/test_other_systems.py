"""System-dependent code is in host/ only.

That every other module can be imported on Windows is tested there (tests/windows/test_imports.py).
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from boincvm.errors import HostError, UnsupportedHostError
from boincvm.host.not_yet import not_yet

PACKAGE = Path(__file__).parents[3] / "src/boincvm"
HOST = PACKAGE / "host"
OF_ONE_SYSTEM = re.compile(r"_(posix|linux|macos|windows|unsupported)$")
RUNS_IN_GUESTS = {"guestlink/terminal/remote.py"}
"""Programs whose text is sent to a guest, which is Linux; none of our modules imports them."""
NAMES_GUESTS_PATHS = {
    "guestlink/terminal/remote.py", "hypervisor/uml/disks.py", "hypervisor/uml/sandbox.py",
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
    """Return what the module uses that not every system has, with lines."""
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
    faceless = [face for face in sorted(faces) if not (HOST / f"{face}.py").exists()]
    # What others of Windows stand on; a program, which `supervised` starts.
    assert faceless == [
        *("console_events", "console_text", "directory_handles", "job_objects"),
        *("local_pipes", "supervisor", "win32"),
    ]


@pytest.mark.parametrize(
    ("platform", "name"), [("win32", "Windows"), ("darwin", "macOS"), ("haiku1", "haiku1")]
)
def test_what_a_system_lacks_is_reported_by_its_name(
    monkeypatch: pytest.MonkeyPatch, platform: str, name: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    error = not_yet("machines")
    assert isinstance(error, UnsupportedHostError)
    assert isinstance(error, HostError)
    assert error.message == f"not yet supported on {name}: machines"
    assert error.hint
