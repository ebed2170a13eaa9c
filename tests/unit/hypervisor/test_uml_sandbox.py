"""How the sandbox and disks of a User-mode Linux are made; tests/vm runs the machines."""

import os
import struct
from pathlib import Path

import pytest

from boincvm.errors import HypervisorMissingError
from boincvm.host.resources import usable_processors
from boincvm.hypervisor.uml import sandbox, seccomp
from boincvm.hypervisor.uml.base_disk import open_base, write_overlay
from boincvm.hypervisor.uml.kernel import find_kernel, needs_libraries
from boincvm.hypervisor.uml.sandbox import make_sandbox, take_processor
from boincvm.hypervisor.uml.seccomp import filter_program
from boincvm.paths import cache_directory, guest_kernel


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))


def test_each_machine_has_a_processor_until_none_is_left() -> None:
    taken = [take_processor() for _ in usable_processors()]
    try:
        assert sorted(one.number for one in taken if one.number is not None) == usable_processors()
        assert take_processor().number is None
        taken[0].close()
        again = take_processor()
        assert again.number == taken[0].number
        again.close()
    finally:
        for one in taken[1:]:
            one.close()


def command(**options: int | None) -> list[str]:
    program = os.open("/bin/true", os.O_RDONLY)
    made = make_sandbox(program, program, memory=64 << 20, cpu=options.get("cpu"))
    os.close(program)
    made.close()
    return made.command


def test_a_machine_is_pinned_to_its_processor() -> None:
    pinned = command(cpu=3)
    assert pinned[pinned.index("--cpu-list") + 1] == "3"
    assert "--cpu-list" not in command(cpu=None)


def test_only_root_s_machines_have_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "is_root", lambda: True)
    assert any(word.startswith("--reuid=6") for word in command())
    monkeypatch.setattr(sandbox, "is_root", lambda: False)
    assert not any(word.startswith("--reuid") for word in command())


def test_there_is_no_machine_without_a_sandbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HypervisorMissingError, match="in a sandbox only") as caught:
        command()
    assert "apt-get install" in caught.value.hint


def test_our_own_kernel_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HypervisorMissingError) as caught:
        find_kernel()
    assert "boincvm image kernel build --uml" in caught.value.hint
    (tmp_path / "linux.uml").touch(mode=0o755)
    assert find_kernel() == (tmp_path / "linux.uml", False)
    guest_kernel("uml").parent.mkdir(parents=True, mode=0o700)
    guest_kernel("uml").touch()
    assert find_kernel() == (guest_kernel("uml"), True)


def test_what_is_no_program_is_taken_for_a_dynamic_one(tmp_path: Path) -> None:
    """So it is started, and itself reports why it does not run."""
    for content in (b"", b"#!/bin/sh\n", b"\x7fELF"):
        (tmp_path / "file").write_bytes(content)
        with (tmp_path / "file").open("rb") as file:
            assert needs_libraries(file.fileno())


ALLOWED, REFUSED, UNKNOWN = 0x7FFF0000, 0x00050001, 0x00050026
X86_64, I386 = 0xC000003E, 0x40000003


def answer(number: int, argument: int = 0, architecture: int = X86_64) -> tuple[int, int]:
    """Run the filter as the host's kernel does; return its answer and how many lines that took."""
    lines = list(struct.iter_unpack("=HBBI", filter_program()))
    data = struct.pack("=IIQQ", number, architecture, 0, argument)
    at, loaded, steps = 0, 0, 0
    while True:
        code, if_true, if_false, value = lines[at]
        at, steps = at + 1, steps + 1
        match code:
            case 0x20:
                (loaded,) = struct.unpack_from("=I", data, value)
            case 0x06:
                return value, steps
            case _:
                holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: loaded & value != 0}
                at += if_true if holds[code] else if_false


def test_what_the_filter_answers() -> None:
    by_argument = {"clone": 56, "socket": 41}
    allowed = set(seccomp._CALLS.values()) - set(by_argument.values())
    for number in (*range(600), 1 << 30, (1 << 30) + 1, (1 << 32) - 1):
        if number in by_argument.values():
            continue
        expected = ALLOWED if number in allowed else UNKNOWN if number == 435 else REFUSED
        assert answer(number)[0] == expected, number
    for argument, expected in ((0x11, ALLOWED), (0x10000011, REFUSED), (0x20000, REFUSED)):
        assert answer(by_argument["clone"], argument)[0] == expected
    for argument, expected in ((1, ALLOWED), (2, REFUSED), (16, REFUSED)):
        assert answer(by_argument["socket"], argument)[0] == expected
    assert answer(0, architecture=I386)[0] == UNKNOWN


def test_the_filter_looks_at_few_numbers() -> None:
    """It runs at each of the switches between a guest's program and the kernel."""
    assert max(answer(number)[1] for number in range(600)) <= 16


def test_a_raw_copy_of_an_image_is_made_once(tmp_path: Path) -> None:
    image = tmp_path / "root.raw"
    image.write_bytes(b"disk" * 1024)
    copies = []
    for _ in range(2):
        base = open_base(image, "raw")
        copies.append(os.fstat(base).st_ino)
        assert os.pread(base, 5000, 0) == b"disk" * 1024
        assert os.fstat(base).st_mode & 0o777 == 0o444
        os.close(base)
    assert copies[0] == copies[1]
    for number in range(6):  # images come and go
        image.write_bytes(b"disk" * 1024 * (number + 2))
        os.close(open_base(image, "raw"))
    assert len(list((cache_directory() / "uml").glob("*.raw"))) == 4


def test_an_overlay_has_the_header_that_the_kernel_checks(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(bytes(1 << 20))
    base = os.open(tmp_path / "base", os.O_RDONLY)
    target = os.open(tmp_path / "overlay", os.O_RDWR | os.O_CREAT)
    write_overlay(target, base, "/proc/self/fd/9")
    head = os.pread(target, 4128, 0)
    magic, version, changed, size, sector = struct.unpack_from(">4sIIQI", head)
    assert (magic, version, size, sector) == (b"OOOM", 3, 1 << 20, 512)
    assert changed == int(os.fstat(base).st_mtime)
    assert head[32:].rstrip(b"\0") == b"/proc/self/fd/9"
    # Header, a bit for each sector, data, each on a page of its own.
    assert os.fstat(target).st_size == 8192 + 4096 + (1 << 20)
    assert os.fstat(target).st_blocks * 512 <= 8192
    os.close(target)
    os.close(base)
