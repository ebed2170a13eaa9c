"""A smaller image of another one; machines are played, disks are real."""

import io
import os
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from boincvm.cli.main import main
from boincvm.errors import ImageBuildError, UsageError
from boincvm.exit_codes import ExitCode
from boincvm.guestlink.program import ProgramEnd
from boincvm.hypervisor.contract import MachineSpec
from boincvm.image.agent_files import imported_modules
from boincvm.image.pack import pack_image, packed_manifest
from boincvm.image.progress import Progress
from boincvm.image.shrink import Command, Shrunk, shrink_image
from boincvm.image.store import ImageStore
from support.elf_kernel import an_elf
from support.packed_images import publish

APP = Command(("app", 'with "quotes" \\ é'), ("result",))
FILES = {
    "usr/bin/dash": b"shell",
    "usr/bin/busybox": b"busybox",
    "usr/bin/app": b"app",
    "usr/bin/ls": b"ls" * 5000,
    "usr/lib/boincvm/agent.pyz": b"agent",
    "opt/data/used": b"used",
    "opt/data/beside": b"beside",
    "opt/elsewhere": b"elsewhere" * 5000,
    "etc/machine-id": b"0123\n",
}
TOUCHED = b"usr/bin/app\0opt/data/used\0../../outside\0"


def archive(*more: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as made:
        folders = {parent.as_posix() for name in FILES for parent in Path(name).parents[:-1]}
        for name in sorted(folders | {"work", "tmp"}):
            entry = tarfile.TarInfo(f"./{name}")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            made.addfile(entry)
        link = tarfile.TarInfo("./bin")
        link.type, link.linkname = tarfile.SYMTYPE, "usr/bin"
        for odd in (link, *more):
            made.addfile(odd)
        for name, content in FILES.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size, entry.mode = len(content), 0o4755 if name == "usr/bin/app" else 0o644
            made.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


class Machines:
    """Plays the machines; `app` says how the command ends in one of the disk `root`."""

    def __init__(
        self, app: Callable[[Path], tuple[int, bytes]], files: bytes | None = None
    ) -> None:
        self.asked: list[str] = []
        self.roots: list[Path] = []
        self._app = app
        self._files = archive() if files is None else files

    @asynccontextmanager
    async def __call__(self, spec: MachineSpec, limit: float) -> AsyncIterator[object]:
        async def run(
            argv: Sequence[str],
            environment: Mapping[str, str],
            on_output: Callable[[str, bytes], None],
        ) -> ProgramEnd:
            code, output = self._answer(spec.root, argv)
            on_output("stdout", output)
            return ProgramEnd(code, None, 0, 0, 0, 0, 0)

        self.roots.append(spec.root)
        yield run

    def _answer(self, root: Path, argv: Sequence[str]) -> tuple[int, bytes]:
        if argv[-1] == "begin" or "use" in argv:
            self.asked.append("begin" if argv[-1] == "begin" else "use")
            return 0, b""
        if argv[-1] == "end":
            return 0, TOUCHED
        if "tar --create" in argv[-1]:
            return 0, self._files
        if "command -v $shell" in argv[-1]:
            return 0, b"/usr/bin/sh\n"
        if "busybox --list" in argv[-1]:
            return 0, b"ls\nsh\nbusybox\n../../evil\n"
        if argv[0] == "cat":
            self.asked.append(argv[-1])
            return 0, b"result"
        self.asked.append(argv[-1])
        return self._app(root)


def listed(root: Path, directory: str) -> dict[str, str]:
    """Return names in a directory of a disk, each with its octal mode."""
    raw = root.with_name("raw-of-test")
    subprocess.run(["qemu-img", "convert", "-O", "raw", root, raw], check=True)
    done = subprocess.run(
        ["debugfs", "-R", f"ls -p {directory}", raw], check=True, capture_output=True, text=True
    )
    raw.unlink()
    rows = [line.split("/") for line in done.stdout.splitlines() if line.startswith("/")]
    return {row[5]: row[2] for row in rows if row[5] not in (".", "..")}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    store = ImageStore()
    publish(store, kernel=an_elf())
    return store


def shrink(store: ImageStore, machines: Machines, command: Command | None = APP) -> Shrunk:
    with store.open("base") as image:
        return shrink_image(image, "small", store, command, boot=machines, progress=Progress(None))


def test_what_the_app_does_not_touch_is_left_out(store: ImageStore, tmp_path: Path) -> None:
    original = store.digest_of("base")
    machines = Machines(lambda _: (3, b"the same"))
    done = shrink(store, machines)
    assert done.removed == ("opt/data/beside", "opt/elsewhere", "usr/bin/ls")
    assert (done.files, done.name) == (len(FILES) + 1, "small")
    assert store.digest_of("base") == original
    assert machines.asked == ["begin", APP.argv[1], "/work/result", "use", *machines.asked[1:3]]
    with store.open("small") as image:
        assert image.digest == done.digest
        assert image.manifest.shrunk_from == original
        assert image.manifest.shrunk_for == ("app", "with %22quotes%22 %5C %C3%A9")
        modes = {"app": "104755", "busybox": "100644", "dash": "100644", "ls": "120777"}
        assert listed(image.root, "/usr/bin") == modes
        assert listed(image.root, "/opt/data") == {"used": "100644"}
        assert listed(image.root, "/").items() >= {"tmp": "041777", "work": "040755"}.items()
        pack_image(image, tmp_path / "small.tar.gz")
    assert packed_manifest(tmp_path / "small.tar.gz").shrunk_from == original


def test_a_program_may_look_whether_files_are_there(store: ImageStore) -> None:
    """The first smaller image does not do the same; with all files beside the touched it does."""

    def app(_: Path) -> tuple[int, bytes]:
        is_first = len(machines.roots) == 2  # after the original's
        return (1, b"") if is_first else (0, b"found")

    machines = Machines(app)
    assert shrink(store, machines).removed == ("opt/elsewhere",)
    assert len(machines.roots) == 3


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (
            lambda root: (0, b"original" if "objects" in root.parts else b"other"),
            "printed something",
        ),
        (lambda root: (0 if "objects" in root.parts else 9, b""), "ended with code 9 instead of"),
    ],
)
def test_an_image_in_which_the_app_does_not_do_the_same_is_not_made(
    app: Callable[[Path], tuple[int, bytes]], message: str, store: ImageStore
) -> None:
    with pytest.raises(ImageBuildError, match=f"was not shrunk: .*{message}"):
        shrink(store, Machines(app))
    assert store.names() == ["base"]
    assert [path.name for path in store.builds.iterdir()] == ["lock"]


def test_an_app_that_is_never_the_same_is_no_measure(store: ImageStore) -> None:
    outputs = iter(range(10))
    with pytest.raises(ImageBuildError, match="does not do the same each time"):
        shrink(store, Machines(lambda _: (0, b"%d" % next(outputs))))


def test_without_a_command_everything_stays(store: ImageStore) -> None:
    machines = Machines(lambda _: (0, b""))
    done = shrink(store, machines, None)
    assert (done.removed, machines.asked) == ((), ["true"])
    with store.open("small") as image:
        assert image.manifest.shrunk_for == ()
        assert "beside" in listed(image.root, "/opt/data")
        assert image.root.stat().st_size == image.manifest.files[2].size


def test_a_trial_makes_no_image(store: ImageStore) -> None:
    with store.open("base") as image:
        done = shrink_image(
            image,
            "small",
            store,
            APP,
            is_trial=True,
            boot=Machines(lambda _: (0, b"")),
            progress=Progress(None),
        )
    assert done.removed == ("opt/data/beside", "opt/elsewhere", "usr/bin/ls")
    assert (done.digest, store.names()) == ("", ["base"])


def test_a_file_that_leads_out_of_the_image_is_refused(store: ImageStore, tmp_path: Path) -> None:
    machines = Machines(lambda _: (0, b""), archive(tarfile.TarInfo("./../outside")))
    with pytest.raises(ImageBuildError, match="outside the root"):
        shrink(store, machines)


def test_a_guest_that_sends_no_archive(store: ImageStore) -> None:
    with pytest.raises(ImageBuildError, match="what the machine sent is damaged"):
        shrink(store, Machines(lambda _: (0, b""), os.urandom(2000)))


def test_what_the_agent_imports_at_any_time() -> None:
    found = imported_modules()
    assert {"_socket", "fcntl", "mmap", "posix", "shutil", "sys", "termios"} <= set(found)
    assert not [name for name in found if name.startswith("boincvm")]


def test_an_image_is_replaced_only_by_force(store: ImageStore) -> None:
    shrink(store, Machines(lambda _: (0, b"")))
    with pytest.raises(UsageError, match="there is an image small already"):
        shrink(store, Machines(lambda _: (0, b"")))


def test_a_command_after_another_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image", "ls", "--", "true"]) == ExitCode.USAGE
    assert "unrecognized arguments: -- true" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "expected"), [("--limit", "a duration above 0"), ("--memory", "a size from")]
)
def test_a_value_that_makes_no_sense(
    option: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", "shrink", "sci", option, "nonsense", "--", "true"]) == ExitCode.USAGE
    assert f"'nonsense', expected {expected}" in capsys.readouterr().err
