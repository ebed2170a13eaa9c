"""QEMU as a file of the app version: unpacked once, checked, and never run if it is damaged."""

import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from boincvm.errors import HostDiskFullError, HypervisorMissingError, JobFileError
from boincvm.host import programs
from boincvm.machine import host_capacity
from boincvm.project.bundle.archive import pack_programs
from boincvm.wrapper import packed_qemu
from boincvm.wrapper.packed_qemu import PROGRAMS, unpacked
from support.host_slot import HostSlot

PROGRAM, _ = PROGRAMS


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory in the cache of this test."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("BOINCVM_HOME", str(home))
    return home / "cache/qemu"


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Return a file with a program and a data file."""
    folder = tmp_path / "folder"
    (folder / "share/qemu").mkdir(parents=True)
    (folder / "share/qemu/pvh.bin").write_bytes(os.urandom(50_000))
    program = folder / programs.file_name(PROGRAM)
    program.write_text("#!/bin/sh\necho this is it\n")
    program.chmod(0o755)
    packed = tmp_path / "qemu_7.2.tar.xz"
    pack_programs(folder, "qemu", packed, 0)
    return packed


def names(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()}


def test_it_is_unpacked_once(packed: Path, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = unpacked(packed, ())
    assert directory.parent == cache
    assert names(cache) == {"lock", directory.name, f"{directory.name}.json"}
    assert os.access(directory / programs.file_name(PROGRAM), os.X_OK)
    assert not os.access(directory / "share/qemu/pvh.bin", os.X_OK)
    identity = (directory / "share/qemu/pvh.bin").stat()
    # Another project's file with the same content has another name.
    other = packed.rename(packed.with_name("other.tar.xz"))
    assert unpacked(other, ()) == directory
    assert (directory / "share/qemu/pvh.bin").stat() == identity
    assert capfd.readouterr().err.count("was unpacked") == 1


def test_its_programs_come_before_the_hosts(
    packed: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_host = tmp_path / "bin" / programs.file_name(PROGRAM)
    of_host.parent.mkdir()
    of_host.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(of_host.parent))
    monkeypatch.delenv("BOINCVM_QEMU", raising=False)
    assert programs.find_program(PROGRAM) == str(of_host)
    monkeypatch.setenv("BOINCVM_QEMU", "")  # so that it is restored
    programs.prefer_programs_of(unpacked(packed, ()))
    found = programs.find_program(PROGRAM)
    assert found is not None
    assert Path(found).is_relative_to(cache)


def test_what_was_changed_is_unpacked_again(packed: Path, cache: Path) -> None:
    directory = unpacked(packed, ())
    changed = directory / "share/qemu/pvh.bin"
    content = changed.read_bytes()
    changed.write_bytes(b"else")
    assert unpacked(packed, ()) == directory
    assert changed.read_bytes() == content
    changed.unlink()
    unpacked(packed, ())
    assert changed.read_bytes() == content
    (directory / "added").touch()
    unpacked(packed, ())
    assert not (directory / "added").exists()


def test_what_a_killed_process_left_is_removed(packed: Path, cache: Path) -> None:
    directory = unpacked(packed, ())
    expected = names(cache)
    (cache / f"new-{directory.name}/share").mkdir(parents=True)
    (cache / f"{directory.name}.json").unlink()  # it is written last
    unpacked(packed, ())
    assert names(cache) == expected


def test_what_nobody_has_used_for_long_is_removed(packed: Path, cache: Path) -> None:
    for name in ("used", "unused"):
        (cache / name).mkdir(parents=True)
        (cache / f"{name}.json").touch()
    os.utime(cache / "unused", (0, 0))
    directory = unpacked(packed, ())
    assert names(cache) == {
        "lock", "used", "used.json", directory.name, f"{directory.name}.json",
    }  # fmt: skip


def altered(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    "damage",
    [
        altered,
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content + b"more",
        lambda _: b"",
        lambda _: b"#!/bin/sh\n",
        lambda content: lzma.compress(lzma.decompress(content)[:30_000]),
    ],
    ids=["altered", "truncated", "its last byte", "more", "empty", "else", "its archive"],
)
def test_a_damaged_file_is_told_and_leaves_nothing(
    packed: Path, cache: Path, damage: Callable[[bytes], bytes]
) -> None:
    packed.write_bytes(damage(packed.read_bytes()))
    with pytest.raises(HypervisorMissingError, match=r"qemu_7\.2\.tar\.xz .* is damaged") as caught:
        unpacked(packed, ())
    assert "reset the project" in caught.value.hint
    assert names(cache) == {"lock"}


def archive_of(path: Path, *members: tarfile.TarInfo) -> Path:
    program = tarfile.TarInfo(f"qemu/{programs.file_name(PROGRAM)}")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for member in (program, *members):
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    path.write_bytes(lzma.compress(stream.getvalue()))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, "/etc/passwd", size
    return made


@pytest.mark.parametrize(
    "hostile",
    [
        member("/etc/cron.d/x"),
        member("qemu/../../../x"),
        member("qemu"),
        member("qemu/lib", tarfile.SYMTYPE),
        member("qemu/lib", tarfile.LNKTYPE),
        member("qemu/lib", tarfile.CHRTYPE),
        member("qemu/lib", tarfile.FIFOTYPE),
        member("qemu/C:\\x"),
        member("qemu/nul"),
        member(f"qemu/{PROGRAM.upper()}{programs.file_name('')}"),
    ],
    ids=lambda made: f"{made.name} {made.type.decode()}",
)
def test_what_has_no_place_in_it_is_refused(
    tmp_path: Path, cache: Path, hostile: tarfile.TarInfo
) -> None:
    packed = archive_of(tmp_path / "qemu.tar.xz", hostile)
    with pytest.raises(HypervisorMissingError, match="is damaged"):
        unpacked(packed, ())
    assert names(cache) == {"lock"}


def test_one_without_the_program_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "folder/lib").mkdir(parents=True)
    (tmp_path / "folder/lib/x").touch()
    pack_programs(tmp_path / "folder", "qemu", tmp_path / "qemu.tar.xz", 0)
    with pytest.raises(HypervisorMissingError, match=f"there is no {PROGRAM}"):
        unpacked(tmp_path / "qemu.tar.xz", ())


def test_a_small_file_fills_no_disk(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_qemu, "MOST_BYTES", 1 << 20)
    packed = archive_of(tmp_path / "qemu.tar.xz", member("qemu/zeros", size=2 << 20))
    with pytest.raises(HypervisorMissingError, match=r"holds more than 1\.0 MiB"):
        unpacked(packed, ())
    monkeypatch.undo()
    monkeypatch.setenv("BOINCVM_HOME", str(cache.parents[1]))
    monkeypatch.setattr(host_capacity, "free_space", lambda _: 1000)
    with pytest.raises(HostDiskFullError):
        unpacked(packed, ())
    assert names(cache) == {"lock"}


def test_only_a_file_of_the_app_version_is_used(packed: Path, cache: Path, tmp_path: Path) -> None:
    original = tmp_path / "original"
    original.write_bytes(packed.read_bytes())
    assert unpacked(packed, [original]).parent == cache  # the client may copy it into the slot
    original.write_bytes(b"else")
    with pytest.raises(JobFileError, match="it is not signed"):
        unpacked(packed, [original])


async def test_a_task_waits_where_it_is_damaged(slot: HostSlot, packed: Path) -> None:
    """It is looked for before anything of the host, so the task ends before it needs an image."""
    project = slot.slot.project
    (project / "qemu_7.2.tar.xz").write_bytes(altered(packed.read_bytes()))
    slot.slot.link("qemu.tar.xz", "qemu_7.2.tar.xz")
    slot.slot.app_files = ["qemu_7.2.tar.xz"]
    slot.slot.write_init_data()
    slot.machine_job("true")
    await slot.run()
    delay, reason, kind = slot.text("boinc_temporary_exit").splitlines()
    assert (delay, kind) == ("3600", "notice"), slot.stderr
    assert "qemu_7.2.tar.xz of the app version is damaged" in reason
