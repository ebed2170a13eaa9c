"""Outputs that are named by a pattern: the guest's shell lists them, and the host checks that."""

import asyncio
import re
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from boincvm.errors import OutputFileError
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.fake.driver import FakeDriver
from boincvm.hypervisor.fake.guest import FakeCall, FakeGuest
from boincvm.job.model import OutputFile
from boincvm.machine import output_patterns
from boincvm.machine.managed import opened
from boincvm.machine.output_patterns import matching_outputs

pytestmark = pytest.mark.timeout(30)


async def matches(
    directory: Path, pattern: str, listed: bytes, taken: tuple[PurePosixPath, ...] = ()
) -> list[str]:
    """Return the sources of what matches in a guest whose shell says that it is `listed`."""

    async def shell(_: FakeGuest, call: FakeCall) -> int:
        call.write("stdout", listed)
        return 0

    spec = MachineSpec(directory / "machine", Path(), Path(), Path(), memory=1 << 20, cpus=1)
    async with opened(FakeDriver({"sh": shell}), spec) as machine:
        output = OutputFile(PurePosixPath(pattern), PurePosixPath(), is_pattern=True)
        found = await machine.guard(matching_outputs(machine.session, output, taken))
    return [str(item.source) for item in found]


@pytest.mark.parametrize(
    ("pattern", "listed"),
    [
        ("*.txt", ["a.txt", "b c.txt"]),
        ("out/*/[0-9]?", ["out/a/1x", "out/b/22"]),
        ("[!a]*", ["b", "ä"]),
        ("[^a]*", ["b"]),
        (".*", [".hidden"]),
        ("a[b", ["a[b"]),
        ("[x].txt", ["[x].txt"]),
    ],
)
async def test_what_a_shell_finds(tmp_path: Path, pattern: str, listed: list[str]) -> None:
    found = await matches(tmp_path, pattern, "".join(f"{name}\0" for name in listed).encode())
    assert found == listed


@pytest.mark.parametrize(
    ("pattern", "listed"),
    [
        ("*.txt", b".ssh/authorized_keys"),
        ("*.txt", b".a.txt"),
        ("*.txt", b"a/b.txt"),
        ("*", b".bashrc"),
        ("*/x", b".git/x"),
        ("out/*", b"other/a"),
        ("out/*", b"out/.a"),
        ("*.txt", b"/etc/a.txt"),
        ("*/*", b"../a"),
    ],
)
async def test_what_a_hostile_guest_lists(tmp_path: Path, pattern: str, listed: bytes) -> None:
    with pytest.raises(OutputFileError, match=f"output {re.escape(pattern)}"):
        await matches(tmp_path, pattern, b"a.txt\0" + listed + b"\0")


async def test_a_name_that_has_what_the_program_prints(tmp_path: Path) -> None:
    with pytest.raises(OutputFileError, match="stdout has what the program prints"):
        await matches(tmp_path, "*", b"a\0stdout\0", (PurePosixPath("stdout"),))


@pytest.mark.parametrize("pattern", [".*", "*", "sub/.*"])
def test_the_directory_itself_is_not_listed(tmp_path: Path, pattern: str) -> None:
    """Run what the guest's shell is given in a shell of this host."""
    expected = [pattern.replace("*", name) for name in ("a b", "c")]
    (tmp_path / "sub").mkdir()
    for name in expected:
        (tmp_path / name).touch()
    command = ["sh", "-c", output_patterns.LIST_COMMAND, "sh", pattern]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=20)
    listed = done.stdout.decode().rstrip("\0").split("\0")
    assert sorted(set(listed) - {"sub"}) == expected


async def test_a_shell_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_patterns, "LIST_LIMIT", 0.05)
    killed = asyncio.Event()

    async def shell(_: FakeGuest, call: FakeCall) -> int:
        assert await call.signals.get() == 9
        killed.set()
        return -9

    spec = MachineSpec(tmp_path / "machine", Path(), Path(), Path(), memory=1 << 20, cpus=1)
    async with opened(FakeDriver({"sh": shell}), spec) as machine:
        output = OutputFile(PurePosixPath("*"), PurePosixPath(), is_pattern=True)
        with pytest.raises(OutputFileError, match=r"output \*: the guest did not list"):
            await machine.guard(matching_outputs(machine.session, output))
        async with asyncio.timeout(10):
            await killed.wait()
