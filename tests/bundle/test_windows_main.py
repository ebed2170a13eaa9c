"""The main program of an app version for Windows, run under wine: it unpacks the folder once."""

import dataclasses
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from boincvm import __version__
from boincvm.cli.main import main
from boincvm.exit_codes import ExitCode
from boincvm.project.bundle import build
from boincvm.project.bundle.cabinet import pack_cabinet
from support.windows.packed_folder import main_program_variables, make_main_program
from support.windows.python import WAIT_LIMIT, WindowsPython, windows_path, windows_python

CHECKOUT = Path(__file__).parents[2]
PLATFORM = "windows_x86_64"
UNPACKED = "boincvm was unpacked\n"
VERSION = f"boincvm-wrapper {__version__}\n"
DAMAGED = "its archive is missing or damaged"

# It may make the folder and Windows, and waits for tests/vm/test_windows.py, which uses it.
pytestmark = pytest.mark.timeout(WAIT_LIMIT + 1500)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the main program and the packed folder."""
    parts = tmp_path_factory.mktemp("parts")
    make_main_program(parts / "main.exe", parts / "boincvm.cab")
    return parts


@pytest.fixture(scope="module")
def windows(parts: Path) -> Iterator[WindowsPython]:
    with windows_python() as windows:
        yield windows


@dataclasses.dataclass
class Client:
    """A directory of a BOINC client, with the app version's files."""

    directory: Path
    windows: WindowsPython
    project_name: str = "p"

    def install(self, parts: Path) -> None:
        self.project.mkdir(parents=True)
        (self.project / "sim_wrapper_1.0.exe").write_bytes((parts / "main.exe").read_bytes())
        self.archive.write_bytes((parts / "boincvm.cab").read_bytes())

    @property
    def project(self) -> Path:
        return self.directory / "projects" / self.project_name

    @property
    def folder(self) -> Path:
        return self.project / "boincvm_0.1"

    @property
    def archive(self) -> Path:
        return self.project / "boincvm_0.1.cab"

    def slot(self, number: int = 0) -> Path:
        """Return a slot, made with its link if it is new."""
        slot = self.directory / "slots" / str(number)
        if not slot.exists():
            slot.mkdir(parents=True)
            target = f"../../projects/{self.project_name}/{self.archive.name}"
            (slot / "boincvm.cab").write_text(f"<soft_link>{target}</soft_link>\n")
        return slot

    def run(self, number: int = 0, *within: str) -> "subprocess.CompletedProcess[str]":
        """Run `boincvm-wrapper --version` in a slot, as the app version's main program."""
        program = self.project / "sim_wrapper_1.0.exe"
        return self.windows.run(program, ["--version"], self.slot(number), within)

    def left(self) -> set[str]:
        """Return the names in the project's directory, but for those of the app version."""
        own = {"sim_wrapper_1.0.exe", self.archive.name}
        return {path.name for path in self.project.iterdir()} - own

    def check_postponed(self, done: "subprocess.CompletedProcess[str]", reason: str) -> None:
        """Check that the task waits with a notice, and that nothing was left."""
        assert done.returncode == 0, done.stdout
        written = self.slot() / "boinc_temporary_exit"
        delay, line, kind = written.read_text().splitlines()
        assert (delay, kind) == ("3600", "notice")
        assert line.startswith("boincvm cannot be unpacked: ")
        assert reason in line
        assert len(line) < 255
        assert done.stdout.splitlines()[-1] == line
        assert self.left() == {"boincvm_0.1.lock"}
        written.unlink()


@pytest.fixture
def client(windows: WindowsPython, parts: Path, tmp_path: Path) -> Client:
    client = Client(tmp_path / "a client of Jörg", windows)
    client.install(parts)
    return client


def test_it_unpacks_the_folder_once_and_replaces_a_damaged_one(client: Client) -> None:
    first = client.run()
    assert (first.returncode, first.stdout) == (0, UNPACKED + VERSION)
    whole = client.archive.read_bytes()
    # What could not be read any more is not unpacked again.
    client.archive.write_bytes(b"")
    second = client.run(1)
    assert (second.returncode, second.stdout) == (0, VERSION)

    client.archive.write_bytes(whole)
    library = client.folder / "python311.dll"
    altered = bytearray(library.read_bytes())
    altered[len(altered) // 2] ^= 1
    library.write_bytes(altered)
    third = client.run(1)
    assert (third.returncode, third.stdout) == (0, UNPACKED + VERSION)
    assert library.read_bytes() != altered
    assert client.left() == {"boincvm_0.1", "boincvm_0.1.lock"}


def test_one_of_two_tasks_unpacks(client: Client) -> None:
    with ThreadPoolExecutor(2) as pool:
        outputs = [done.stdout for done in pool.map(client.run, (0, 1))]
    assert sorted(outputs, key=len) == [VERSION, UNPACKED + VERSION]
    assert client.left() == {"boincvm_0.1", "boincvm_0.1.lock"}


def test_the_next_task_mends_what_a_killed_one_left(client: Client) -> None:
    # It is killed when it writes the first file that is larger, such as python311.dll.
    done = client.run(0, "prlimit", "--core=0", f"--fsize={3 << 20}")
    assert done.returncode == -signal.SIGXFSZ, done.stdout
    assert client.left() == {"boincvm_0.1.lock", "boincvm_0.1.new"}
    assert any((client.project / "boincvm_0.1.new").iterdir())
    (client.project / "boincvm_0.1.damaged/lib").mkdir(parents=True)
    done = client.run()
    assert (done.returncode, done.stdout) == (0, UNPACKED + VERSION)
    assert client.left() == {"boincvm_0.1", "boincvm_0.1.lock"}


def test_a_long_path(windows: WindowsPython, parts: Path, tmp_path: Path) -> None:
    """The longest that Python can start from, with files that are beyond Windows' usual limit."""
    room = 240 - len(windows_path(tmp_path / "projects/boincvm_0.1")) - 1
    client = Client(tmp_path, windows, "p" * (room - 1))
    client.install(parts)
    assert len(windows_path(client.folder)) == 239
    done = client.run()
    assert (done.returncode, done.stdout) == (0, UNPACKED + VERSION)
    longer = Client(tmp_path / "1", windows, client.project_name)
    longer.install(parts)
    done = longer.run()
    assert "the path of BOINC's data directory is too long" in done.stdout
    assert longer.left() == set()


def truncated(archive: bytes) -> bytes:
    return archive[: len(archive) // 2]


def altered(archive: bytes) -> bytes:
    middle = len(archive) // 2
    return archive[:middle] + bytes([archive[middle] ^ 1]) + archive[middle + 1 :]


def emptied(archive: bytes) -> bytes:
    return archive[:0]


@pytest.mark.parametrize("damage", [truncated, altered, emptied])
def test_a_damaged_archive_postpones_the_task(
    client: Client, damage: Callable[[bytes], bytes]
) -> None:
    whole = client.archive.read_bytes()
    client.archive.write_bytes(damage(whole))
    client.check_postponed(client.run(), DAMAGED)
    client.archive.unlink()
    client.check_postponed(client.run(), DAMAGED)
    client.archive.write_bytes(whole)
    done = client.run()
    assert (done.returncode, done.stdout) == (0, UNPACKED + VERSION)


def test_an_archive_that_leads_elsewhere_is_refused(client: Client, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.mkdir()
    for name in ("first", "xx_evil", "xy_evil"):
        (content / name).write_bytes(bytes(9))
    packed = tmp_path / "packed.cab"
    pack_cabinet(content, "boincvm", packed)
    client.slot()
    before = set(tmp_path.rglob("*")) | {client.project / "boincvm_0.1.lock"}
    name = b"boincvm\\xx_evil\0"
    for hostile in (
        b"boincvm\\..\\evil\0", b"..\\..\\..\\b\\evil\0", b"boincvm/..\\evil\0",
        b"boincvm\\\\\\\\evil\0", b"C:\\evil_evil_ev\0", b"boincvm\\c:\\evil\0",
        b"boincvm\\nul.txt\0", b"boincvm\\COM1.xx\0", b"boincvm\\x_evil.\0",
        b"boincvm\\xx/evil\0", b"boincvm\\xx\xffevil\0", b"boincvm\\XY_EVIL\0",
        b"bOincvm\\xx_evil\0", b"\\\\.\\pipe\\xx_evi\0",
    ):  # fmt: skip
        assert len(hostile) == len(name)
        archive = packed.read_bytes()
        assert archive.count(name) == 1
        client.archive.write_bytes(archive.replace(name, hostile))
        client.check_postponed(client.run(), DAMAGED)
        assert set(tmp_path.rglob("*")) == before


def test_an_archive_that_is_too_large_is_refused(client: Client, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.mkdir()
    (content / "manifest").write_bytes(bytes(9))
    packed = tmp_path / "packed.cab"
    pack_cabinet(content, "boincvm", packed)
    archive = packed.read_bytes()
    size = (9).to_bytes(4, "little") + (0).to_bytes(4, "little")
    assert archive.count(size) == 1
    for hostile in (257 << 20, 0xFFFFFFFF):
        client.archive.write_bytes(archive.replace(size, hostile.to_bytes(4, "little") + size[4:]))
        client.check_postponed(client.run(), DAMAGED)


def test_only_a_link_to_a_file_of_the_app_version_is_followed(client: Client) -> None:
    slot = client.slot()
    (slot / "init_data.xml").write_text(
        "<app_init_data>\n<project_preferences>\n<app_file>boincvm_0.1.cab</app_file>\n"
        "</project_preferences>\n<app_file>sim_wrapper_1.0.exe</app_file>\n"
        "<app_file>xboincvm_0.1.cab</app_file>\n</app_init_data>\n"
    )
    done = client.run()
    assert done.returncode == ExitCode.JOB_FILE
    assert "boincvm.cab is not a file of the app version" in done.stdout
    (slot / "init_data.xml").write_text(
        "<app_init_data>\n<app_file>sim_wrapper_1.0.exe</app_file>\n"
        "<app_file>boincvm_0.1.cab</app_file>\n</app_init_data>\n"
    )
    assert client.run().stdout == UNPACKED + VERSION

    for target in (
        "../../projects/../evil/boincvm_0.1.cab", "../../projects/p/../boincvm_0.1.cab",
        "../../projects/p/.cab", "../../projects/p/boincvm_0.1.zip", "boincvm_0.1.cab",
        "../../projects/p\\boincvm_0.1.cab", "//host/projects/boincvm_0.1.cab",
        f"{windows_path(client.archive)}", "x" * 600,
    ):  # fmt: skip
        (slot / "boincvm.cab").write_text(f"<soft_link>{target}</soft_link>\n")
        done = client.run()
        assert done.returncode == ExitCode.JOB_FILE, target
        assert "the slot has no link boincvm.cab" in done.stdout
    (slot / "boincvm.cab").unlink()
    assert client.run().returncode == ExitCode.JOB_FILE


def test_a_task_is_suspended_killed_and_aborted(windows: WindowsPython, parts: Path) -> None:
    """The process that the client starts is the wrapper's."""
    variables = main_program_variables(parts / "main.exe", parts / "boincvm.cab")
    options = ["--timeout=200", "-m", "main_program", "tests/windows/test_main_program.py"]
    done = windows.pytest(CHECKOUT, options, variables)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_the_command_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "manifest").write_bytes(b"x")
    monkeypatch.setattr(build, "build_folder", lambda *_: made)
    out = tmp_path / "out"
    command = ["bundle", "--platform", PLATFORM, "--json", str(out)]
    assert main(command) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["archive"] == f"{out}.cab"
    assert table["main_program"] == f"{out}-main.exe"
    assert Path(table["archive"]).read_bytes()[:4] == b"MSCF"
    program = Path(table["main_program"]).read_bytes()
    assert program[:2] == b"MZ"
    assert main(command) == ExitCode.OUTPUT_FILE
    assert f"{out}-main.exe already exists" in capsys.readouterr().out
    assert main([*command[:-1], str(tmp_path / "again")]) == 0
    assert (tmp_path / "again-main.exe").read_bytes() == program
