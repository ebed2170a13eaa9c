"""Overlays as QEMU's own tools see them, and files that may not be a machine's disk."""

import json
import os
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from boincvm.hypervisor.qcow2 import (
    CLUSTER,
    DiskRefusedError,
    check_disk,
    check_header,
    write_overlay,
    write_raw,
)

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40


def over(overlay, backing):
    """Return the two as QEMU gets them: the overlay's header names nothing."""
    nodes = [
        {"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}}
        for path in (overlay, backing)
    ]
    return f"json:{json.dumps({**nodes[0], 'backing': nodes[1]})}"


def qemu_img(*arguments: object) -> str:
    done = subprocess.run(
        ["qemu-img", *map(str, arguments)], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout


@pytest.fixture
def backing(tmp_path):
    """Make a disk of 8 MiB, not all zero."""
    raw, path = tmp_path / "raw", tmp_path / "a backing: file, with signs.qcow2"
    raw.write_bytes(b"\x5a" * (3 * MIB) + bytes(5 * MIB))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, path)
    return path


@pytest.mark.parametrize("size", [8 * MIB, 8 * MIB + 512, 8 * GIB, 16 * TIB])
def test_an_overlay_is_sound_and_of_its_size(backing, tmp_path, size):
    overlay = tmp_path / "overlay.qcow2"
    write_overlay(overlay, size)
    assert check_disk(overlay) == size
    reported = json.loads(qemu_img("info", "--output=json", overlay))
    assert reported["virtual-size"] == size
    assert "backing-filename" not in reported
    checked = json.loads(qemu_img("check", "--output=json", overlay))
    assert checked["check-errors"] == 0
    assert not {"corruptions", "leaks"} & set(checked)


def test_it_reads_as_its_backing_file_until_it_is_written(backing, tmp_path):
    overlay = tmp_path / "overlay.qcow2"
    write_overlay(overlay, 8 * MIB)
    assert "identical" in qemu_img("compare", over(overlay, backing), backing)
    before = backing.read_bytes()
    subprocess.run(
        ["qemu-io", "-c", "write -P 7 1M 2M", over(overlay, backing)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert backing.read_bytes() == before
    qemu_img("convert", "-O", "raw", over(overlay, backing), tmp_path / "read")
    expected = b"\x5a" * MIB + b"\x07" * (2 * MIB) + bytes(5 * MIB)
    assert (tmp_path / "read").read_bytes() == expected
    assert json.loads(qemu_img("check", "--output=json", overlay))["check-errors"] == 0


def test_a_file_that_is_there_is_not_touched(backing, tmp_path):
    before = backing.read_bytes()
    with pytest.raises(FileExistsError):
        write_overlay(backing, MIB)
    assert backing.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"QFI\xfb", b"not a disk at all, but long enough for one" * 3]
)
def test_what_is_no_qcow2_file_is_no_disk(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DiskRefusedError, match="is not a qcow2 file"):
        check_disk(tmp_path / "file")


@pytest.mark.parametrize("name", ["raw", "vmdk", "vdi", "vpc", "vhdx", "qed", "qcow", "parallels"])
def test_other_formats_are_no_disks(tmp_path, name):
    """They may name other files of the host, as VMDK does in a plain-text descriptor."""
    qemu_img("create", "-q", "-f", name, tmp_path / "disk", "8M")
    with pytest.raises(DiskRefusedError, match=r"is not a qcow2 file|version 1, not 3"):
        check_disk(tmp_path / "disk")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["-o", "data_file=secret"], "names another file as its data file"),
        (["-o", "data_file=secret,data_file_raw=on"], "names another file as its data file"),
        (["-b", "secret", "-F", "raw"], "names another file as its backing file"),
        (["-o", "lazy_refcounts=on"], "uses unsupported features"),
        (["-o", "extended_l2=on,cluster_size=128k"], "uses unsupported features"),
        (["-o", "cluster_size=4k"], "uses unsupported features"),
        (["-o", "compression_type=zstd"], "uses unsupported features"),
        (["-o", "refcount_bits=64"], "uses unsupported features"),
        (["-o", "compat=0.10"], "of version 2, not 3"),
    ],
)
def test_what_qemu_img_makes_and_we_do_not_take(tmp_path, monkeypatch, options, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(b"secret" * MIB)
    qemu_img("create", "-q", "-f", "qcow2", *options, "disk", "8M")
    with pytest.raises(DiskRefusedError, match=reason):
        check_disk(tmp_path / "disk")


def test_snapshots_in_a_disk(tmp_path):
    write_overlay(tmp_path / "disk", MIB)
    qemu_img("snapshot", "-c", "one", tmp_path / "disk")
    with pytest.raises(DiskRefusedError, match="holds snapshots"):
        check_disk(tmp_path / "disk")


def test_what_is_no_file_of_its_own_is_no_disk(tmp_path):
    write_overlay(tmp_path / "disk", MIB)
    (tmp_path / "link").symlink_to("disk")
    with pytest.raises(OSError, match="symbolic"):
        check_disk(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DiskRefusedError, match="not a regular file"):
        check_disk(tmp_path / "pipe")


def changed(offset, kind, value):
    """Return the head and the length of an overlay of 1 GiB with that field changed."""
    with tempfile.TemporaryDirectory() as directory:
        write_overlay(Path(directory, "disk"), GIB)
        data = Path(directory, "disk").read_bytes()
    head, length = bytearray(data[: 1 << 16]), len(data)
    struct.pack_into(f">{kind}", head, offset, value)
    return bytes(head), length


@pytest.mark.parametrize(
    ("offset", "kind", "value", "reason"),
    [
        (8, "Q", 200, "backing file"),
        (16, "I", 7, "backing file"),
        (24, "Q", 0, "size is invalid"),
        (24, "Q", 1 << 62, "size is invalid"),
        (24, "Q", 513, "size is invalid"),
        (32, "I", 1, "encrypted"),
        (36, "I", 1, "size is invalid"),
        (36, "I", 1 << 20, "too large"),
        (40, "Q", 0, "tables lie outside the file"),
        (40, "Q", 3 * 65536 + 8, "tables lie outside the file"),
        (40, "Q", 1 << 40, "tables lie outside the file"),
        (48, "Q", 1 << 63, "tables lie outside the file"),
        (56, "I", 0, "tables lie outside the file"),
        (56, "I", 1 << 31, "tables lie outside the file"),
        (60, "I", 1, "snapshots"),
        (64, "Q", 65536, "snapshots"),
        (72, "Q", 1, "not closed properly"),
        (72, "Q", 2, "corrupt"),
        (72, "Q", 4, "its data file"),
        (72, "Q", 1 << 63, "features"),
        (80, "Q", 1, "features"),
        (88, "Q", 2, "features"),
        (100, "I", 72, "features"),
        (100, "I", 1 << 31, "features"),
        (104, "II", (0x44415441, 6), "an external data file"),
        (104, "II", (0xE2792ACA, 5), "a backing file"),
        (104, "II", (0x0537BE77, 8), "uses unsupported extensions"),
        (104, "II", (0x6803F857, 1 << 31), "header does not end"),
    ],
)
def test_fields_that_may_not_be(offset, kind, value, reason):
    if isinstance(value, tuple):
        head, length = changed(offset, "Q", value[0] << 32 | value[1])
    else:
        head, length = changed(offset, kind, value)
    with pytest.raises(DiskRefusedError, match=reason):
        check_header(head, length, "disk")


def test_a_file_hidden_behind_the_names_of_features():
    head, length = changed(104, "Q", 0x6803F857 << 32 | 8)
    named = bytearray(head)
    struct.pack_into(">II6s", named, 120, 0x44415441, 6, b"secret")
    with pytest.raises(DiskRefusedError, match="external data file"):
        check_header(bytes(named), length, "disk")
    assert check_header(head, length, "disk") == GIB


@given(st.lists(st.tuples(st.integers(0, 135), st.integers(0, 255)), min_size=1, max_size=4))
@example([(103, 160)])  # a longer header, whose further fields are all zero
@example([(103, 112), (104, 1)])  # its compression is not zlib
def test_no_header_names_a_file(changes):
    """Whatever bytes are changed, an accepted file names nothing and needs nothing."""
    head, length = changed(104, "Q", 0)
    changed_head = bytearray(head)
    for offset, value in changes:
        changed_head[offset] = value
    try:
        check_header(bytes(changed_head), length, "disk")
    except DiskRefusedError:
        return
    assert bytes(changed_head[:20]) == head[:20]
    assert bytes(changed_head[60:100]) == head[60:100]
    (at,) = struct.unpack_from(">I", changed_head, 100)
    assert at >= 104
    assert not any(changed_head[104:at])  # fields that change nothing if they are zero
    assert struct.unpack_from(">I", changed_head, at)[0] in (0, 0x6803F857)


@pytest.mark.parametrize("size", [1 << 20, (512 << 20) + 3 * CLUSTER])
def test_a_disk_is_written_raw(tmp_path: Path, size: int) -> None:
    raw, disk, again = tmp_path / "raw", tmp_path / "disk.qcow2", tmp_path / "again"
    with raw.open("wb") as file:
        file.truncate(size)
        for at in (0, 5 * CLUSTER, 6 * CLUSTER, 9 * CLUSTER + 512, size - 4096):
            file.seek(at)
            file.write(os.urandom(4096))
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2"]
    subprocess.run([*convert, raw, disk], check=True)
    with again.open("wb") as file:
        assert write_raw(disk, file.fileno()) == size
    assert again.read_bytes() == raw.read_bytes()
    assert again.stat().st_blocks * 512 <= 16 * CLUSTER  # where nothing is, there is a hole


def test_a_compressed_disk_is_not_written_raw(tmp_path: Path) -> None:
    raw, disk = tmp_path / "raw", tmp_path / "disk.qcow2"
    raw.write_bytes(b"again and again " * 65536)
    convert = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2"]
    subprocess.run([*convert, raw, disk], check=True)
    with raw.open("wb") as file, pytest.raises(DiskRefusedError, match="compressed"):
        write_raw(disk, file.fileno())


def test_a_small_disk_does_not_become_a_large_one(tmp_path: Path) -> None:
    """Its tables may refer to one cluster again and again."""
    disk = tmp_path / "disk.qcow2"
    write_overlay(disk, 1 << 30)
    with disk.open("r+b") as file:
        (entries, l1) = struct.unpack_from(">IQ", file.read(48), 36)
        end = file.seek(0, os.SEEK_END)
        file.write(struct.pack(">Q", l1) * (CLUSTER // 8))  # of a second-level table
        file.seek(l1)
        file.write(struct.pack(">Q", end) * entries)
    with (tmp_path / "raw").open("wb") as file, pytest.raises(DiskRefusedError, match="than once"):
        write_raw(disk, file.fileno())
