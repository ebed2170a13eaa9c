"""A root disk read from the host, compared with QEMU's own tools."""

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from boincvm.errors import HypervisorError
from boincvm.hypervisor.contract import DiskRangeError, DiskReader
from boincvm.hypervisor.disk_reader import open_disk
from boincvm.hypervisor.qcow2 import CLUSTER, write_overlay

MIB = 1 << 20
ROOT_SIZE, SIZE = 4 * MIB, (512 << 20) + 8 * MIB
"""Bytes of the image's disk and of the machine's, whose second-level tables are two."""
EDGE = 512 << 20
"""Where the second one begins."""


def qemu_io(layer: Path, below: Path | None, *commands: str) -> None:
    backing = ",backing.driver=qcow2,backing.file.driver=file,backing.file.filename="
    options = f"driver=qcow2,file.driver=file,file.filename={layer}"
    if below is not None:
        options += f"{backing}{below}"
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(
        ["qemu-io", "--image-opts", options, *words],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=60,
    )


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "root.raw"
    path.write_bytes(os.urandom(ROOT_SIZE))
    return path


@pytest.fixture
def root(tmp_path: Path, raw: Path) -> Path:
    path = tmp_path / "root.qcow2"
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(path)]
    subprocess.run(convert, check=True, timeout=60)
    return path


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "lower.qcow2", tmp_path / "upper.qcow2"]
    for layer in made:
        write_overlay(layer, SIZE)
    return made


@contextmanager
def reader_of(layers: list[Path], root: Path, root_format: str = "qcow2") -> Iterator[DiskReader]:
    reader = open_disk([os.open(layer, os.O_RDONLY) for layer in layers], root, root_format)
    try:
        yield reader
    finally:
        reader.close()


def read(reader: DiskReader, at: int, length: int, scratch: Path) -> bytes:
    """Read through a file that starts with 3 other bytes."""
    with (scratch / "target").open("w+b") as target:
        target.write(b"abc")
        target.truncate(length + 3)
        reader.copy(at, length, target.fileno(), 3)
        target.seek(0)
        data = target.read()
    assert data[:3] == b"abc"
    return data[3:]


@pytest.mark.parametrize("root_format", ["qcow2", "raw"])
def test_any_range_of_several_layers(
    layers: list[Path], root: Path, raw: Path, tmp_path: Path, root_format: str
) -> None:
    lower, upper = layers
    written = [(lower, EDGE - 2 * CLUSTER, 5 * CLUSTER, 1), (lower, MIB, MIB, 2)]
    written += [(upper, EDGE - CLUSTER, 2 * CLUSTER, 3), (upper, MIB + 3 * CLUSTER + 512, 4096, 4)]
    for layer, at, length, byte in written:
        # Lowest first, as a machine writes them: what is around a short write is copied up.
        qemu_io(layer, lower if layer is upper else root, f"write -P {byte} {at} {length}")
    expected = bytearray(raw.read_bytes()) + bytes(SIZE - ROOT_SIZE)
    for _, at, length, byte in written:
        expected[at : at + length] = bytes([byte]) * length
    chance = random.Random(7)
    ranges = [(0, ROOT_SIZE), (EDGE - 2 * CLUSTER, 5 * CLUSTER), (MIB - 1, 2), (EDGE - 1, 2)]
    for _ in range(30):
        at = chance.randrange(ROOT_SIZE)
        ranges.append((at, chance.randrange(ROOT_SIZE - at)))
    with reader_of(layers, root if root_format == "qcow2" else raw, root_format) as reader:
        for at, length in ranges:
            assert read(reader, at, length, tmp_path) == expected[at : at + length], (at, length)


def test_what_was_written_after_it_was_opened(
    layers: list[Path], root: Path, tmp_path: Path
) -> None:
    """This is in new second-level tables, and over older data."""
    with reader_of(layers, root) as reader:
        qemu_io(layers[1], layers[0], f"write -P 1 {EDGE} {CLUSTER}")
        assert read(reader, EDGE, CLUSTER, tmp_path) == b"\1" * CLUSTER
        qemu_io(layers[1], layers[0], f"write -P 2 {EDGE} {CLUSTER}", f"write -P 3 0 {CLUSTER}")
        assert read(reader, EDGE, CLUSTER, tmp_path) == b"\2" * CLUSTER
        assert read(reader, 0, CLUSTER, tmp_path) == b"\3" * CLUSTER


def test_zeros_hide_what_lies_below(layers: list[Path], root: Path, tmp_path: Path) -> None:
    qemu_io(layers[1], layers[0], f"write -z -u {CLUSTER} {CLUSTER}")
    with reader_of(layers, root) as reader:
        assert read(reader, CLUSTER, CLUSTER, tmp_path) == bytes(CLUSTER)


@pytest.mark.parametrize(
    ("at", "length"), [(SIZE, 1), (SIZE - 1, 2), (-1, 1), (0, -1), (1 << 63, 1), (0, SIZE + 1)]
)
def test_what_is_not_on_the_disk(
    layers: list[Path], root: Path, tmp_path: Path, at: int, length: int
) -> None:
    with reader_of(layers, root) as reader, (tmp_path / "target").open("wb") as target:
        with pytest.raises(DiskRangeError):
            reader.copy(at, length, target.fileno(), 0)
        assert os.fstat(target.fileno()).st_size == 0


def test_what_was_never_stored(layers: list[Path], root: Path, tmp_path: Path) -> None:
    """A file's blocks must be stored, so the guest has not flushed them; no zeros are invented."""
    with reader_of(layers, root) as reader, pytest.raises(DiskRangeError, match="never stored"):
        read(reader, ROOT_SIZE, CLUSTER, tmp_path)


def test_a_compressed_cluster(layers: list[Path], raw: Path, tmp_path: Path) -> None:
    raw.write_bytes(b"again and again " * (MIB // 16))
    packed = tmp_path / "packed.qcow2"
    convert = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(packed)]
    subprocess.run(convert, check=True, timeout=60)
    with reader_of(layers, packed) as reader, pytest.raises(DiskRangeError, match="compressed"):
        read(reader, 0, CLUSTER, tmp_path)


def test_a_table_that_leads_out_of_its_file(layers: list[Path], root: Path, tmp_path: Path) -> None:
    with layers[1].open("r+b") as file:
        file.seek(3 * CLUSTER)
        file.write((1 << 40).to_bytes(8, "big"))
    with reader_of(layers, root) as reader, pytest.raises(DiskRangeError, match="outside"):
        read(reader, 0, CLUSTER, tmp_path)


def test_a_layer_that_is_no_disk_of_ours(layers: list[Path], root: Path) -> None:
    layers[1].write_bytes(b"no disk")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(HypervisorError, match="refused"), reader_of(layers, root):
        pass
    assert len(os.listdir("/proc/self/fd")) == before
