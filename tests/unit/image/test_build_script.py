"""A recipe's script and its check, in machines that only answer as machines do."""

import asyncio
import io
import re
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from boincvm.errors import GuestPoweredOffError, ImageBuildError, ProgramStartError
from boincvm.guestlink.program import ProgramEnd
from boincvm.hypervisor.architecture import Architecture
from boincvm.hypervisor.contract import MachineSpec
from boincvm.image import build_script, disk
from boincvm.image.build_check import Check, run_check
from boincvm.image.build_script import BuildScript, run_script
from boincvm.image.kernels.modules import check_modules
from boincvm.image.machine import RunProgram
from boincvm.image.manifest import Package
from boincvm.image.tools import search_path
from boincvm.image.tree import Attributes, Tree
from boincvm.image.unpack import Control

SCRIPT = BuildScript(b"echo made\n", 60.0, 1 << 30)
ENOUGH = b"100000 4096\n"


def end(code: int | None, signal: int | None = None) -> ProgramEnd:
    return ProgramEnd(code, signal, 0, 0, 0, 0, 0)


class Machine:
    """A machine in which a script has made the file etc/made."""

    def __init__(self, *, code: int | None = 0, free: bytes = ENOUGH, hangs: bool = False) -> None:
        self.code, self.free, self.hangs = code, free, hangs
        self.error: Exception | None = None
        self.specs: list[MachineSpec] = []
        self.script = b""
        self.names: list[str] = []

    @asynccontextmanager
    async def boot(self, spec: MachineSpec, _limit: float) -> AsyncIterator[RunProgram]:
        self.specs.append(spec)
        yield self.run

    async def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        on_output: Callable[[str, bytes], None],
    ) -> ProgramEnd:
        if argv[0] == "find":
            on_output("stdout", b"\0".join(name.encode() for name in [*self.names, "etc/made"]))
        elif argv[0] == "stat":
            on_output("stdout", self.free)
        elif "tar" in argv[-1]:
            on_output("stdout", changes())
        elif "-delete" not in argv[-1]:
            return await self._program(on_output)
        return end(0)

    async def _program(self, on_output: Callable[[str, bytes], None]) -> ProgramEnd:
        on_output("stdout", b"first\n")
        on_output("stdout", b"last \x1b[2J words")
        if self.error is not None:
            raise self.error
        if self.hangs:
            await asyncio.Event().wait()
        return end(self.code, None if self.code is not None else 9)


def changes() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo("etc/made")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"made"))
    return file.getvalue()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    def write_root_disk(tree: Tree, target: Path, size: int) -> None:
        assert size < disk.SIZE
        target.touch()

    monkeypatch.setattr(disk, "write_root_disk", write_root_disk)
    tree = Tree.create(tmp_path / "root")
    tree.add_directory("var/tmp", Attributes(0o1777))
    tree.add_directory("etc")
    return tree


def run(tree: Tree, machine: Machine, script: BuildScript = SCRIPT) -> list[str]:
    """Run the script; return the lines that it has shown."""
    shown: list[str] = []
    machine.names = tree.names()
    directory = tree.directory.parent
    parts = (Path("kernel"), Path("initrd"), directory, machine.boot, shown.append)
    run_script(tree, script, *parts, Architecture.X86_64)
    return shown


def test_what_a_script_has_made_is_in_the_image(tree: Tree, tmp_path: Path) -> None:
    assert run(tree, Machine()) == ["first"]
    assert (tree.directory / "etc/made").read_bytes() == b"made"
    assert not [name for name in tree.names() if "script" in name]
    assert tree.special["var/tmp"] == Attributes(0o1777)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]


@pytest.mark.parametrize(
    ("machine", "script", "why", "advice"),
    [
        (Machine(code=3), SCRIPT, "the script ended with 3", ""),
        (Machine(code=None), SCRIPT, "the script ended with signal 9", ""),
        (
            Machine(hangs=True),
            SCRIPT._replace(limit=0.05),
            "the script has not ended within 0.05s",
            "limit in [script]",
        ),
        (
            Machine(free=b"7 4096\n"),
            SCRIPT,
            "the script has filled the 1.0 GiB of disk that it may write",
            "disk in [script]",
        ),
        (Machine(free=b"gone"), SCRIPT, "no machine that tells its free space", ""),
    ],
    ids=["fails", "is killed", "hangs", "fills the disk", "removes programs"],
)
def test_a_script_that_fails(
    tree: Tree, machine: Machine, script: BuildScript, why: str, advice: str
) -> None:
    with pytest.raises(ImageBuildError, match=why) as failed:
        run(tree, machine, script)
    assert advice in failed.value.hint
    if machine.free != b"gone":
        assert failed.value.hint.endswith("the end of its output:\n    first\n    last [2J words")
    assert not (tree.directory / "etc/made").exists()


def test_the_disk_of_a_script_has_room_for_the_image_and_little_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real mke2fs, of a tree of many small files; qemu-img takes no name for a protocol."""
    room = 1 << 20
    tree = Tree.create(tmp_path / "root")
    for number in range(1500):
        tree.add_file(f"usr/share/{number}", b"x")
    tree.add_file("usr/large", bytes(16 << 20))
    monkeypatch.chdir(tmp_path)
    target = Path("nbd:disk.qcow2")
    disk.write_root_disk(tree, target, size := build_script._disk_size(tree, room))
    convert = ["qemu-img", "convert", "-O", "raw", target.absolute(), tmp_path / "raw"]
    subprocess.run(convert, check=True)
    done = subprocess.run(
        ["dumpe2fs", "-h", tmp_path / "raw"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": search_path()},
    )
    found = dict(re.findall(r"^(Free \w+): +(\d+)$", done.stdout, re.MULTILINE))
    assert room <= int(found["Free blocks"]) * 4096 <= room + (160 << 20)
    assert int(found["Free inodes"]) >= 1000
    assert size < disk.SIZE


def test_a_script_that_turns_the_machine_off(tree: Tree) -> None:
    machine = Machine()
    machine.error = GuestPoweredOffError("it turned itself off")
    with pytest.raises(ImageBuildError, match="the machine that runs the script failed: it turned"):
        run(tree, machine)


def check(tmp_path: Path, machine: Machine, limit: float = 60.0) -> None:
    target = tmp_path / "object"
    target.mkdir()
    run_check(target, Check(("prog", "a"), limit), 1 << 30, machine.boot, Architecture.X86_64)


def test_an_image_that_passes_its_check(tmp_path: Path) -> None:
    machine = Machine()
    check(tmp_path, machine)
    assert machine.specs[0].memory == 1 << 30


@pytest.mark.parametrize(
    ("machine", "limit", "why"),
    [
        (Machine(code=1), 60.0, "ended with 1"),
        (Machine(hangs=True), 0.05, "has not ended within 0.05s"),
    ],
)
def test_an_image_that_fails_its_check_is_not_kept(
    tmp_path: Path, machine: Machine, limit: float, why: str
) -> None:
    with pytest.raises(ImageBuildError, match=rf"not kept, .*\[check\] {why}") as failed:
        check(tmp_path, machine, limit)
    assert failed.value.hint.endswith("first\n    last [2J words")


def test_a_check_whose_program_is_missing(tmp_path: Path) -> None:
    machine = Machine()
    machine.error = ProgramStartError("no such program: prog")
    with pytest.raises(ImageBuildError, match="cannot start: no such program: prog"):
        check(tmp_path, machine)


def control(name: str, *, depends: str = "libc6", files: bytes = b"") -> Control:
    text = f"Package: {name}\nDepends: {depends}\nDescription: dkms"
    return Control(text, Package(name, "1", "amd64", False), False, 0, {"md5sums": files})


def test_packages_that_need_modules_are_refused_for_a_kernel_without() -> None:
    md5 = b"0" * 32
    check_modules(
        [
            control("plain", files=md5 + b"  usr/lib/python3/modules/x\n"),
            control("linux-image-6.1.0-1-cloud-amd64", files=md5 + b"  lib/modules/6.1/x.ko\n"),
            control("near", depends="dkms-not, libdkms"),
        ],
        "small",
    )
    with pytest.raises(ImageBuildError, match=r"need some: a, b, c$"):
        check_modules(
            [
                control("a", files=md5 + b"  usr/bin/a\n" + md5 + b"  lib/modules/6.1/x.ko\n"),
                control("b", files=md5 + b"  usr/lib/modules-load.d/b.conf\n"),
                control("c", depends="libc6 (>= 2), dkms (>= 2.1)"),
                control("plain"),
            ],
            "small",
        )
