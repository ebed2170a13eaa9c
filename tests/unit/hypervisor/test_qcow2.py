"""Overlays as QEMU's own tools see them."""

import json
import subprocess

import pytest

from boincvm.hypervisor.qcow2 import virtual_size, write_overlay

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40


def qemu_img(*arguments: object) -> str:
    done = subprocess.run(
        ["qemu-img", *map(str, arguments)], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout


@pytest.fixture
def backing(tmp_path):
    """8 MiB, not all zero."""
    raw, path = tmp_path / "raw", tmp_path / "a backing: file, with signs.qcow2"
    raw.write_bytes(b"\x5a" * (3 * MIB) + bytes(5 * MIB))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, path)
    return path


@pytest.mark.parametrize("size", [8 * MIB, 8 * MIB + 512, 8 * GIB, 16 * TIB])
def test_an_overlay_is_sound_and_of_its_size(backing, tmp_path, size):
    overlay = tmp_path / "overlay.qcow2"
    write_overlay(overlay, backing, size)
    assert virtual_size(overlay) == size
    told = json.loads(qemu_img("info", "--output=json", overlay))
    assert told["virtual-size"] == size
    assert told["backing-filename"] == str(backing)
    assert told["backing-filename-format"] == "qcow2"
    checked = json.loads(qemu_img("check", "--output=json", overlay))
    assert checked["check-errors"] == 0
    assert not {"corruptions", "leaks"} & set(checked)


def test_it_reads_as_its_backing_file_until_it_is_written(backing, tmp_path):
    overlay = tmp_path / "overlay.qcow2"
    write_overlay(overlay, backing, 8 * MIB)
    assert "identical" in qemu_img("compare", overlay, backing)
    before = backing.read_bytes()
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 2M", overlay],
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert backing.read_bytes() == before
    qemu_img("convert", "-O", "raw", overlay, tmp_path / "read")
    expected = b"\x5a" * MIB + b"\x07" * (2 * MIB) + bytes(5 * MIB)
    assert (tmp_path / "read").read_bytes() == expected
    assert json.loads(qemu_img("check", "--output=json", overlay))["check-errors"] == 0


def test_a_file_that_is_there_is_not_touched(backing, tmp_path):
    before = backing.read_bytes()
    with pytest.raises(FileExistsError):
        write_overlay(backing, backing, MIB)
    assert backing.read_bytes() == before


def test_a_name_that_qcow2_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match="too long a name"):
        write_overlay(tmp_path / "overlay", tmp_path.joinpath(*["d" * 250] * 5), MIB)
    assert not (tmp_path / "overlay").exists()


@pytest.mark.parametrize(
    "content", [b"", b"QFI\xfb", b"not a disk at all, but long enough for one"]
)
def test_what_is_no_qcow2_file_has_no_size(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="is no qcow2 file"):
        virtual_size(tmp_path / "file")
