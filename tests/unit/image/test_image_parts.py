"""The parts of a build that need no package: kernel, initrd, agent, rules, programs."""

import asyncio
import gzip
import io
import lzma
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from boincvm.errors import BoincvmError, HostDiskFullError, ImageBuildError, UsageError
from boincvm.exit_codes import ExitCode
from boincvm.image import agent_files, bytecode, tools
from boincvm.image.architectures import AMD64, ARM64
from boincvm.image.build_inputs import check_architecture
from boincvm.image.exclude import is_for_kernel, is_unread, is_unused
from boincvm.image.initrd import Entry, cpio
from boincvm.image.interruption import terminable
from boincvm.image.kernel import decompress, extract_image, extract_kernel, module_needs
from boincvm.image.names import check_mirror, check_package_names
from boincvm.image.packages import _explained
from boincvm.image.progress import Progress
from boincvm.image.tools import ToolError, run_tool
from support.bench import until, until_waits_in, wait_for_end

ELF = b"\x7fELF" + bytes(range(256)) * 40


def make_bzimage(payload: bytes, *, sectors: int = 3, offset: int = 64) -> bytes:
    """Return a file that the x86 boot protocol would accept as a kernel."""
    image = bytearray((sectors + 1) * 512 + offset) + payload + b"after"
    image[0x1F1] = sectors
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, offset, len(payload))
    return bytes(image)


def lz4_legacy(content: bytes) -> bytes:
    return subprocess.run(
        ["lz4", "-l", "-c", "-q"], input=content, capture_output=True, check=True
    ).stdout


@pytest.mark.parametrize(
    "payload",
    [
        gzip.compress(ELF),
        lzma.compress(ELF) + struct.pack("<I", len(ELF)),
        lambda: lz4_legacy(ELF) + struct.pack("<I", len(ELF)),
    ],
    ids=["gzip", "xz", "lz4"],
)
def test_the_kernel_is_found_in_each_packing(payload):
    assert extract_kernel(make_bzimage(payload() if callable(payload) else payload)) == ELF


@pytest.mark.parametrize(
    "image",
    [b"", b"MZ" * 2000, make_bzimage(gzip.compress(b"no kernel")), make_bzimage(b"\x1f\x8bbad")],
)
def test_what_is_no_kernel_is_refused(image):
    with pytest.raises(ImageBuildError):
        extract_kernel(image)


ARM64_IMAGE = b"MZ" + bytes(54) + b"ARM\x64" + bytes(range(256)) * 40


@pytest.mark.parametrize(
    "content", [ARM64_IMAGE, gzip.compress(ARM64_IMAGE)], ids=["plain", "gzip"]
)
def test_an_arm64_kernel(content):
    assert extract_image(content) == ARM64_IMAGE


@pytest.mark.parametrize(
    "content",
    [b"", ELF, make_bzimage(ELF), gzip.compress(b"MZ" * 100)],
    ids=["empty", "elf", "bzimage", "gzip"],
)
def test_what_is_no_arm64_kernel_is_refused(content):
    with pytest.raises(ImageBuildError, match="not an arm64 Image"):
        extract_image(content)


def test_plain_content_stays():
    assert decompress(b"plain") == b"plain"


@pytest.mark.parametrize(
    ("information", "needs"),
    [
        (b"\0depends=virtio,virtio-ring\0", ["virtio", "virtio_ring"]),
        (b"\0depends=\0", []),
        (b"\0name=x\0", []),
    ],
)
def test_what_a_module_needs(information, needs):
    assert module_needs(b"\x7fELF" + information) == needs


def test_the_archive_is_one_that_cpio_reads(tmp_path):
    archive = cpio([Entry("dir", 0o040755), Entry("dir/file", 0o100755, b"abcde")])
    subprocess.run(["cpio", "-id", "--quiet"], input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "dir/file").read_bytes() == b"abcde"
    assert (tmp_path / "dir/file").stat().st_mode & 0o777 == 0o755


def test_the_agent_and_the_codec_are_among_the_sources():
    sources = agent_files.agent_sources()
    assert {"__main__.py", "boincvm/bus/stomp.py", "boincvm_agent/__init__.py"} <= set(sources)
    assert agent_files.guest_digest() == agent_files.guest_digest()


def test_the_agents_archive_does_not_depend_on_order_or_time():
    one = agent_files.agent_archive({"b.pyc": b"2", "a.pyc": b"1"})
    assert one == agent_files.agent_archive({"a.pyc": b"1", "b.pyc": b"2"})
    with zipfile.ZipFile(io.BytesIO(one)) as archive:
        assert archive.namelist() == ["a.pyc", "b.pyc"]
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


def test_the_init_script_is_shell(tmp_path):
    (tmp_path / "init").write_bytes(agent_files.init_script())
    subprocess.run(["sh", "-n", tmp_path / "init"], check=True)


@pytest.mark.parametrize(
    "name", ["", "a", "-o", "A", "gmp ecm", "x;y", "../x", "a" * 200, "b=1", "p/suite", "a\nb"]
)
def test_bad_package_names_are_refused(name):
    with pytest.raises(UsageError):
        check_package_names((name,))


def test_package_names_are_sorted_and_unique():
    assert check_package_names(("g++", "bc", "bc", "libstdc++6")) == ("bc", "g++", "libstdc++6")
    with pytest.raises(UsageError, match="too many"):
        check_package_names(tuple(f"package{number}" for number in range(1001)))


def test_mirrors():
    assert check_mirror("https://mirror.example/debian") == "https://mirror.example/debian"
    for bad in ("-x", "deb http://x y", "http://x y", "ftp://x", "/srv", "http://$(x)"):
        with pytest.raises(UsageError):
            check_mirror(bad)


@pytest.mark.parametrize(
    ("name", "dropped"),
    [
        ("usr/share/man/man1/ls.1.gz", True),
        ("usr/share/doc/bc/changelog.gz", True),
        ("usr/share/doc/bc/copyright", False),
        ("usr/share/zoneinfo/right/Europe/Paris", True),
        ("usr/share/zoneinfo/Europe/Paris", False),
        ("usr/share/locale/de/LC_MESSAGES/x.mo", True),
        ("usr/lib/locale/C.utf8/LC_CTYPE", False),
        ("boot/vmlinuz-6.1", True),
        ("lib/modules/6.1/kernel/x.ko", True),
        ("usr/bin/ecm", False),
        ("usr/share/manx/data", False),
        ("usr/lib/python3.11/os.py", False),
    ],
)
def test_what_nobody_reads_is_not_unpacked(name, dropped):
    assert is_unread(name) is dropped
    assert is_unused(name) is dropped


@pytest.mark.parametrize("name", ["etc/init.d/x", "usr/lib/systemd/system/x", "usr/share/i18n/x"])
def test_what_only_scripts_need_goes_at_last(name):
    assert (is_unread(name), is_unused(name)) == (False, True)


def test_the_kernels_own_packages():
    assert is_for_kernel("linux-image-6.1.0-57-cloud-amd64")
    assert is_for_kernel("initramfs-tools-core")
    assert not is_for_kernel("linux-libc-dev")


def test_all_missing_programs_are_in_one_error(monkeypatch, tmp_path):
    monkeypatch.setattr(tools, "search_path", lambda: str(tmp_path))
    with pytest.raises(ImageBuildError) as caught:
        tools.check_host(tmp_path)
    assert "mmdebstrap, " in caught.value.message
    assert caught.value.hint.startswith("apt-get install ")
    assert "e2fsprogs" in caught.value.hint
    assert "qemu-utils" in caught.value.hint


@pytest.mark.parametrize(
    ("architecture", "package", "other"),
    [(AMD64, "qemu-system-x86", "qemu-system-arm"), (ARM64, "qemu-system-arm", "qemu-system-x86")],
)
def test_only_the_emulator_of_the_images_machines_is_needed(
    monkeypatch, tmp_path, architecture, package, other
):
    monkeypatch.setattr(tools, "search_path", lambda: str(tmp_path))
    with pytest.raises(ImageBuildError) as caught:
        tools.check_host(tmp_path, architecture)
    assert package in caught.value.hint.split()
    assert other not in caught.value.hint.split()


def test_an_unknown_architecture():
    with pytest.raises(ImageBuildError, match="images for 'mips' cannot be built") as caught:
        check_architecture("mips")
    assert caught.value.hint == "choose one of: amd64, arm64"


def test_a_full_disk_is_said_before_the_build(monkeypatch, tmp_path):
    monkeypatch.setattr(tools, "DISK_SPACE", 1 << 60)
    monkeypatch.setattr(shutil, "which", lambda tool, path: tool)
    with pytest.raises(HostDiskFullError):
        tools.check_host(tmp_path)


def test_a_failing_program_is_quoted():
    with pytest.raises(ToolError, match=r"sh ended with 3: first \| second"):
        run_tool(["sh", "-c", "echo first >&2; echo second >&2; exit 3"])
    assert run_tool(["cat"], stdin=b"in") == b"in"


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("E: Unable to locate package nosuch\nE: mmdebstrap failed", "no package nosuch"),
        ("E: Package 'virtual' has no installation candidate", "no package virtual"),
        ("E: unmet dependencies\n a : Conflicts: b", "a : Conflicts: b"),
        ("W: Failed to fetch http://x  Could not resolve 'x'", "could not be reached"),
        ("something else", "something else"),
    ],
)
def test_what_apt_says_becomes_one_line(log, message):
    error = _explained(ToolError("mmdebstrap", 1, log), "bookworm")
    assert message in error.message
    assert "\n" not in error.message
    assert error.hint


def test_an_interrupted_build_ends_its_programs(tmp_path):
    """It is interrupted when both of them run, and they have ended when it has."""
    processes = tmp_path / "processes"
    os.mkfifo(processes)
    handles: list[int] = []
    main = threading.main_thread()

    def interrupt() -> None:
        handles.extend(os.pidfd_open(int(word)) for word in processes.read_text().split())
        until_waits_in(os.getpid(), "poll")
        # Not to any thread of the process: the main one may hold it back just now.
        signal.pthread_kill(main.ident, signal.SIGTERM)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(BoincvmError) as caught, terminable():
        run_tool(["sh", "-c", f"sleep 1000 & echo $! $$ >'{processes}'; sleep 1000"])
    interrupting.join()
    assert caught.value.exit_code == ExitCode.TERMINATED
    assert len(handles) == 2
    for handle in handles:
        wait_for_end(handle, 10)


def test_a_signal_that_comes_in_a_callback_of_asyncio_interrupts_a_build():
    async def build() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)
        async with asyncio.timeout(10):
            await asyncio.Event().wait()

    with pytest.raises(BoincvmError) as caught, terminable():
        asyncio.run(build())
    assert caught.value.exit_code == ExitCode.TERMINATED


def test_steps_are_named_and_timed():
    stream = io.StringIO()
    progress = Progress(stream.write)
    with progress.step("outer"), pytest.raises(KeyError), progress.step("inner"):
        raise KeyError
    inner, outer = stream.getvalue().splitlines()
    assert inner.endswith("s]   inner: failed")
    assert outer.endswith("s] outer")
    with Progress(None).step("silent"):
        pass


def test_a_terminal_sees_a_step_while_it_lasts():
    stream = io.StringIO()
    with Progress(stream.write, is_live=True).step("unpacking"):
        assert "unpacking" in stream.getvalue()


def test_a_terminal_sees_how_long_a_step_takes():
    stream = io.StringIO()
    progress = Progress(stream.write, is_live=True, period=0.01)
    with progress.step("building"):
        with progress.step("unpacking"):
            until(lambda: re.search(r"\[ +\d+ s\]   unpacking", stream.getvalue()), 20)
            progress.detail("58 packages")
            until(lambda: re.search(r"\[ +\d+ s\]     58 packages", stream.getvalue()), 20)
        until(lambda: re.search(r"\[ +\d+ s\] building", stream.getvalue()), 20)
    assert stream.getvalue().endswith(" s] building\n")
    before = stream.getvalue()
    with Progress(stream.write, period=0.01).step("in a pipe"):
        pass
    assert stream.getvalue().removeprefix(before).endswith(" s] in a pipe\n")


def test_the_guests_sources_are_found():
    assert (agent_files.guest_directory() / "init").is_file()
    assert isinstance(agent_files.guest_directory(), Path)


@pytest.mark.parametrize(("location", "status"), [("cache", 0), ("beside", 1)])
def test_a_librarys_module_that_cannot_be_compiled_stays_a_source(
    tmp_path: Path, location: str, status: int
) -> None:
    (tmp_path / "bad.py").write_text("print 'Python 2'\n")
    (tmp_path / "good.py").write_text("x = 1\n")
    command = [sys.executable, "-c", bytecode._COMPILE, tmp_path, tmp_path, "/lib", location]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == status, done.stderr
    assert [path.name.partition(".")[0] for path in tmp_path.rglob("*.pyc")] == ["good"]
