"""The folder for volunteers with Linux: where there is nothing else, and when it is damaged."""

import dataclasses
import os
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

import boincvm
from boincvm import __version__
from boincvm.exit_codes import ExitCode
from boincvm.image.progress import Progress
from boincvm.paths import cache_directory
from boincvm.project.bundle import build, python_files
from boincvm.project.bundle.archive import pack_tar
from support.bundles import ARM64, LINUX, PAGES, made_folder, run_alone
from support.small_disk import needs_namespaces, small_disk

WORKER = '#include <stdio.h>\nint main(void) { return puts("worked") < 0; }\n'
JOB = """\
<job_desc><task>
  <application>worker</application><stdout_filename>out.txt</stdout_filename>
</task></job_desc>
"""
REPORT = "import boincvm, encodings, sys; print(sys.path, boincvm.__file__, encodings.__file__)"

# The first test makes it.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def folder() -> Path:
    return made_folder(LINUX)


@pytest.fixture
def damageable(folder: Path, tmp_path: Path) -> Path:
    """Return a copy whose files may be changed: a file must be removed first, then written."""
    copy = tmp_path / "boincvm"
    shutil.copytree(folder, copy, copy_function=os.link)
    return copy


def change(path: Path, content: bytes) -> None:
    """Replace a file, which may be a link to one that others use."""
    mode = path.stat().st_mode
    path.unlink()
    path.write_bytes(content)
    path.chmod(mode)


def test_the_programs_start_where_there_is_nothing_else(folder: Path) -> None:
    version = run_alone(folder, ["/app/boincvm-wrapper", "--version"])
    assert (version.stdout, version.stderr) == (f"boincvm-wrapper {__version__}\n", "")
    usage = run_alone(folder, ["/app/boincvm", "--help"])
    assert usage.stdout.startswith("usage: boincvm VERB")
    page = run_alone(folder, ["/app/boincvm", "help", "volunteer-folder"])
    assert page.stdout.startswith("# ")


def test_a_task_of_the_host_where_there_is_nothing_else(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "worker.c"
    source.write_text(WORKER)
    slot = tmp_path / "slot"
    slot.mkdir()
    subprocess.run(["musl-gcc", "-static", "-o", slot / "worker", source], check=True)
    (slot / "job.xml").write_text(JOB)
    system = ("--bind", str(slot), "/slot", "--chdir", "/slot", "--proc", "/proc", "--dev", "/dev")
    done = run_alone(folder, ["/app/boincvm-wrapper"], *system)
    assert done.returncode == 0, done.stderr
    assert (slot / "out.txt").read_text() == "worked\n"


def test_nothing_of_another_python_is_read(damageable: Path, tmp_path: Path) -> None:
    (tmp_path / "encodings.py").write_text("raise SystemExit('the host was asked')")
    variables = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path), "PYTHONSTARTUP": "x"}
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\n")
    own = damageable.rename(tmp_path / "boincvm_0.1")
    command = [own / "python", "-c", REPORT]
    done = subprocess.run(
        command, env=variables, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = [word.strip("[],'") for word in done.stdout.split()]
    assert all(path.startswith(str(own)) for path in found), done.stdout


def test_nothing_of_the_hosts_libraries_is_read(folder: Path, tmp_path: Path) -> None:
    names = ("LD_PRELOAD", "LD_AUDIT", "GLIBC_TUNABLES")
    variables = {name: str(tmp_path / "missing.so") for name in names}
    code = "import os, sys; sys.exit(any(name in os.environ for name in sys.argv[1:]))"
    command = [folder / "python", "-c", code, *names]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    # With it the loader tells where it looks for a library.
    code = "import ctypes; ctypes.CDLL('missing.so')"
    done = subprocess.run(
        [folder / "python", "-c", code],
        env={"LD_DEBUG": "libs"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "find library=missing.so" in done.stderr
    assert "search cache" not in done.stderr


@pytest.mark.parametrize("character", [":", ";", "$"])
def test_a_path_that_the_loader_would_divide_is_refused(damageable: Path, character: str) -> None:
    elsewhere = damageable.rename(damageable.with_name(f"boinc{character}vm"))
    command = [elsewhere / "boincvm-wrapper", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (ExitCode.HOST, "")
    assert f"{elsewhere} has one of :;$ in its path" in done.stderr


def test_there_is_one_process(folder: Path) -> None:
    with subprocess.Popen(
        [folder / "python", "-c", "import os; print(os.getpid(), flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        process.kill()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    "name",
    ["lib/python", "lib/libc.so.6", "lib/python3.11/os.pyc", "lib/python3.11/boincvm/errors.pyc"],
)
def test_an_altered_file_is_reported_and_never_run(damageable: Path, name: str) -> None:
    content = bytearray((damageable / name).read_bytes())
    content[len(content) // 2] ^= 1
    change(damageable / name, bytes(content))
    done = run_alone(damageable, ["/app/boincvm-wrapper", "--version"])
    assert (done.returncode, done.stdout) == (ExitCode.HOST, "")
    assert name in done.stderr
    assert "was altered or truncated" in done.stderr


@pytest.mark.parametrize("name", ["lib/boincvm", "lib/python3.11/boincvm/paths.pyc", "manifest"])
def test_a_truncated_file_is_reported_and_never_run(damageable: Path, name: str) -> None:
    content = (damageable / name).read_bytes()
    for size in (len(content) - 1, len(content) // 2, 0):
        change(damageable / name, content[:size])
        done = run_alone(damageable, ["/app/boincvm-wrapper", "--version"])
        assert (done.returncode, done.stdout) == (ExitCode.HOST, ""), size
        assert name in done.stderr
        assert "was altered or truncated" in done.stderr


def test_a_file_that_is_missing_is_reported(damageable: Path) -> None:
    (damageable / "lib/libm.so.6").unlink()
    done = run_alone(damageable, ["/app/boincvm", "--version"])
    assert (done.returncode, done.stdout) == (ExitCode.HOST, "")
    assert "lib/libm.so.6 is missing" in done.stderr


def test_an_altered_manifest_is_reported(damageable: Path) -> None:
    lines = (damageable / "manifest").read_bytes().splitlines(keepends=True)
    change(damageable / "manifest", b"".join(lines[1:]))
    done = run_alone(damageable, ["/app/boincvm-wrapper", "--version"])
    assert "manifest is missing, or was altered or truncated" in done.stderr


@pytest.mark.parametrize("platform", [LINUX, ARM64])
def test_it_is_the_same_each_time(
    platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made_folder(platform)
    inputs = cache_directory() / "bundle/inputs"
    home = tmp_path / "home"
    (home / "cache/bundle/inputs").mkdir(parents=True)
    for path in inputs.glob("[0-9a-f]" * 64):  # what else is there, another process just fetches
        os.link(path, home / "cache/bundle/inputs" / path.name)
    home.chmod(0o700)
    monkeypatch.setenv("BOINCVM_HOME", str(home))
    again = build.build_folder(platform, PAGES, None, Progress(None))
    assert again != folder
    assert (again / "manifest").read_bytes() == (folder / "manifest").read_bytes()


def test_nothing_of_its_makers_computer_is_in_it(folder: Path) -> None:
    """Python writes its own compiled modules, with their paths, unless it is told not to."""
    modules = folder / "lib/python3.11"
    others = set(folder.rglob("__pycache__")) - set((modules / "boincvm").rglob("__pycache__"))
    assert others == set()  # ours have those of sources that are kept as text
    cache = os.fsencode(cache_directory())
    assert [path for path in folder.rglob("*.pyc") if cache in path.read_bytes()] == []


def test_an_installed_package_has_the_guests_sources_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "boincvm"
    (package / "_guest").mkdir(parents=True)
    (package / "_guest/init").touch()
    monkeypatch.setattr(boincvm, "__file__", str(package / "__init__.py"))
    monkeypatch.setattr(python_files, "guest_directory", lambda: package / "_guest")
    (tmp_path / "modules").mkdir()
    python_files.add_boincvm(tmp_path / "modules", tmp_path)
    assert (tmp_path / "modules/boincvm/_guest/init").exists()


def test_every_part_has_its_licence(folder: Path) -> None:
    names = {path.name for path in (folder / "licences").iterdir()}
    assert {"boincvm.txt", "SOURCES.txt", "libc6.txt", "python3.11-minimal.txt"} <= names
    assert any(name.startswith("qemu_qmp.") for name in names)
    assert "Debian 12: glibc" in (folder / "licences/SOURCES.txt").read_text()


def test_equal_folders_are_packed_equally(tmp_path: Path) -> None:
    packed = []
    for name in ("a", "b"):
        (tmp_path / name / "lib").mkdir(parents=True)
        (tmp_path / name / "program").write_text("x")
        (tmp_path / name / "program").chmod(0o744)
        (tmp_path / name / "lib/data").write_bytes(bytes(9))
        os.utime(tmp_path / name / "lib/data", (len(packed), len(packed)))
        archive = tmp_path / f"{name}.tar.xz"
        pack_tar(tmp_path / name, "boincvm", archive)
        packed.append(archive.read_bytes())
    assert packed[0] == packed[1]
    with tarfile.open(tmp_path / "a.tar.xz") as tar:
        modes = {member.name: member.mode for member in tar}
    assert modes == {"boincvm/lib/data": 0o644, "boincvm/program": 0o755}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project's directory: the main program of the manual, and a folder that is packed."""
    page = (PAGES / "volunteer-folder.md").read_text()
    project = tmp_path / "projects/p"
    script = project / "sim_wrapper_1.0"
    project.mkdir(parents=True)
    script.write_text(page[page.index("#!/bin/sh") :].partition("```")[0])
    script.chmod(0o755)
    program = tmp_path / "packed/boincvm-wrapper"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ -s "${0%/*}/manifest" ] || exit 224\necho "$0" "$@"\n')
    program.chmod(0o755)
    (program.parent / "manifest").write_text("whole")
    pack_tar(program.parent, "boincvm", project / "boincvm_0.1.tar.xz")
    return project


def make_slot(project: Path, slot: str) -> Path:
    directory = project.parents[1] / "slots" / slot
    directory.mkdir(parents=True)
    link = "<soft_link>../../projects/p/boincvm_0.1.tar.xz</soft_link>\n"
    (directory / "boincvm.tar.xz").write_text(link)
    return directory


def run_main_program(project: Path, slot: str) -> None:
    """Run it as a client does, and check that it became the folder's wrapper."""
    directory = make_slot(project, slot)
    command = ["../../projects/p/sim_wrapper_1.0", "--nthreads", "2"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True)
    assert done.stdout == "../../projects/p/boincvm_0.1/boincvm-wrapper --nthreads 2\n"
    names = {path.name for path in project.iterdir()}
    assert names == {
        "sim_wrapper_1.0", "boincvm_0.1", "boincvm_0.1.lock", "boincvm_0.1.tar.xz",
    }  # fmt: skip


def test_the_main_program_of_the_manual_takes_only_a_file_of_the_app_version(project: Path) -> None:
    slot = make_slot(project, "1")
    link = slot / "boincvm.tar.xz"
    given = link.read_text()
    command = ["../../projects/p/sim_wrapper_1.0"]

    def check_refused(reason: str) -> None:
        done = subprocess.run(command, cwd=slot, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (ExitCode.JOB_FILE, "")
        assert reason in done.stderr
        assert not (project / "boincvm_0.1").exists()

    for path in ("p/../p/a.tar.xz", "p/.a.tar.xz", "../a.tar.xz", "./a.tar.xz"):
        link.write_text(f"<soft_link>../../projects/{path}</soft_link>\n")
        check_refused("leads elsewhere")
    for path in ("/tmp/a.tar.xz", "p/a.tar.xz", "a.tar.xz", "../../projects/a.tar.xz", ""):
        link.write_text(f"<soft_link>{path}</soft_link>\n")
        check_refused("is no link to a file of the app version")
    link.write_text("<soft_link>../../projects/p/a.zip</soft_link>\n")
    check_refused("a.zip is no .tar.xz file")
    link.write_text(given)
    init_data = slot / "init_data.xml"
    init_data.write_text(
        "<app_init_data>\n<app_file>sim_wrapper_1.0</app_file>\n</app_init_data>\n"
    )
    check_refused("boincvm_0.1.tar.xz is not a file of the app version")
    init_data.write_text(
        "<app_init_data>\n<app_file>sim_wrapper_1.0</app_file>\n"
        "<app_file>boincvm_0.1.tar.xz</app_file>\n</app_init_data>\n"
    )
    done = subprocess.run(command, cwd=slot, capture_output=True, text=True, check=True)
    assert done.stdout == "../../projects/p/boincvm_0.1/boincvm-wrapper\n"


def test_the_main_program_of_the_manual_unpacks_the_folder_once(project: Path) -> None:
    run_main_program(project, "1")
    # What could not be read any more is not unpacked again.
    (project / "boincvm_0.1.tar.xz").write_bytes(b"")
    run_main_program(project, "2")


def test_the_main_program_of_the_manual_replaces_a_damaged_folder(project: Path) -> None:
    run_main_program(project, "1")
    (project / "boincvm_0.1/manifest").write_bytes(b"")
    run_main_program(project, "2")
    assert (project / "boincvm_0.1/manifest").read_text() == "whole"


def test_the_main_program_of_the_manual_removes_what_a_killed_one_left(project: Path) -> None:
    for name in ("new", "damaged"):
        (project / f"boincvm_0.1.{name}/lib").mkdir(parents=True)
    run_main_program(project, "1")


@pytest.mark.parametrize("lacking", ["flock", "tar", "xz"])
def test_the_main_program_of_the_manual_waits_for_what_is_missing(
    project: Path, tmp_path: Path, lacking: str
) -> None:
    slot = make_slot(project, "1")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in {"flock", "mkdir", "mv", "rm", "sed", "tar", "xz"} - {lacking}:
        (programs / name).symlink_to(shutil.which(name) or name)
    done = subprocess.run(
        ["../../projects/p/sim_wrapper_1.0"],
        cwd=slot,
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    delay, reason, kind = (slot / "boinc_temporary_exit").read_text().splitlines()
    assert (delay, kind, done.stderr) == ("3600", "notice", f"{reason}\n")
    assert reason.startswith(f"this task needs {lacking}: ")


@needs_namespaces
def test_the_main_program_of_the_manual_waits_for_disk_space(project: Path, tmp_path: Path) -> None:
    (tmp_path / "packed/large").write_bytes(bytes(8 << 20))
    pack_tar(tmp_path / "packed", "boincvm", project / "boincvm_0.1.tar.xz")
    make_slot(project, "1")
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        'cp -r "$1/projects" "$1/slots" "$2" && cd "$2/slots/1" && ../../projects/p/sim_wrapper_1.0'
        " && cat boinc_temporary_exit && ls ../../projects/p"
    )
    done = subprocess.run(
        [*small_disk("4m", disk), "sh", "-c", script, "sh", tmp_path, disk],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    delay, reason, kind, *names = done.stdout.splitlines()
    assert (delay, kind) == ("3600", "notice")
    assert reason.startswith("boincvm cannot be unpacked: free some disk space")
    assert "No space left on device" in done.stderr
    assert names == ["boincvm_0.1.lock", "boincvm_0.1.tar.xz", "sim_wrapper_1.0"]


def test_a_build_removes_no_folder_that_may_be_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path))
    cache = tmp_path / "cache/bundle"
    tmp_path.chmod(0o700)
    recent, old, other = (
        cache / "made" / name for name in (f"{LINUX}-1", f"{LINUX}-2", "windows_x86_64-1")
    )
    killed = cache / "new-1"
    for directory in (recent, old, other, killed):
        (directory / "lib").mkdir(parents=True)
    for directory in (old, other):
        os.utime(directory, (0, 0))

    def make(folder: Path, *_: object) -> None:
        (folder / "licences").mkdir()

    kind = dataclasses.replace(build.PLATFORMS[LINUX], make=make)
    monkeypatch.setitem(build.PLATFORMS, LINUX, kind)
    made = build.build_folder(LINUX, PAGES, None, Progress(None))
    assert set((cache / "made").iterdir()) == {recent, other, made}
    assert not list(cache.glob("new-*"))
    os.utime(made, (0, 0))
    assert build.build_folder(LINUX, PAGES, None, Progress(None)) == made
    assert made.stat().st_mtime > 0
