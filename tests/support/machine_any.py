"""A machine of the controller that came up in any of the ways in which machines do.

A program, its files and its faults may not depend on the way. A test that takes the fixture
`machine_any` runs once for each, in a machine that it shares with the tests of its module; with
`own_machine_any` it has one of its own, which it may end.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

from boincvm.image.store import ImageStore
from boincvm.machine.golden.snapshots import TABLE
from support.controller.home import Home

SOURCES = ("booted", "cloned", "restored")
"""By its kernel; as a copy of a golden snapshot; from a snapshot of its own."""
_MEMORY = {"booted": 272, "cloned": 256, "restored": 256}
"""MiB. The tests make golden snapshots of machines with 256 MiB, but none with 272."""
_NUMBERS = itertools.count(1)


class AnyMachine:
    """A machine as a user of the controller commands it; `source` is one of SOURCES."""

    def __init__(self, home: Home, source: str) -> None:
        self.home = home
        self.source = source
        self.name = f"{source}.{next(_NUMBERS)}"

    @property
    def here(self) -> Path:
        """Return the directory of the user's files."""
        return self.home.directory

    def exec(
        self, *argv: str, options: tuple[str, ...] = (), code: int | None = 0, stdin: bytes = b""
    ) -> CompletedProcess[bytes]:
        """Run a program in it; `code` is the exit code that it must have, None: any."""
        return self.home.run("exec", *options, self.name, "--", *argv, code=code, stdin=stdin)

    def sh(self, script: str, *, code: int | None = 0, stdin: bytes = b"") -> bytes:
        """Run a shell script in it; return its standard output."""
        return self.exec("sh", "-c", script, code=code, stdin=stdin).stdout

    def put(self, source: str, path: str) -> None:
        """Copy a file or tree of the user into it."""
        self.home.run("cp", source, f"{self.name}:{path}")

    def get(self, path: str, destination: str) -> None:
        """Copy a file or tree out of it to the user."""
        self.home.run("cp", f"{self.name}:{path}", destination)


@contextmanager
def machine_from(home: Home, source: str) -> Iterator[AnyMachine]:
    """Run a machine within the block, unless the test ends it; then remove it."""
    machine = AnyMachine(home, source)
    home.run("create", machine.name, "--memory", f"{_MEMORY[source]}M")
    if source == "cloned":
        home.run("image", "warm", "--controller", "--memory", f"{_MEMORY[source]}M", "base")
    before = _last_use()
    home.run("start", machine.name)
    if source == "cloned":
        assert _last_use() > before, "there was no golden snapshot, or it was of no use"
    if source == "restored":
        home.run("snapshot", "take", machine.name, "here")
        home.run("snapshot", "restore", machine.name, "here")
    try:
        yield machine
    finally:
        home.run("rm", "--force", machine.name, code=None)


def _last_use() -> int:
    """Return when the golden snapshot for the clones was last used; 0 if there is none.

    Others may make and remove snapshots of other images meanwhile.
    """
    store = ImageStore()
    name = f"{store.digest_of('base')[:16]}-{_MEMORY['cloned']}-1-durable"
    try:
        return (store.golden / name / TABLE).stat().st_mtime_ns
    except FileNotFoundError:
        return 0
