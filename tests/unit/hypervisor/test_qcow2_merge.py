"""Merged layers, as QEMU's own tools see them."""

import json
import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from boincvm.hypervisor.qcow2 import check_disk, write_overlay
from boincvm.hypervisor.qcow2_merge import MergeError, merge

SIZE = 3 << 30


def qemu(*arguments: str, directory: Path) -> str:
    done = subprocess.run(
        arguments, check=True, capture_output=True, text=True, cwd=directory, timeout=60
    )
    return done.stdout


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.qcow2"
    qemu("qemu-img", "create", "-f", "qcow2", str(path), str(SIZE), directory=tmp_path)
    qemu(
        "qemu-io", "-c", "write -P 1 0 20M", "-c", "write -P 2 2G 1M", str(path), directory=tmp_path
    )
    return path


def chain(*paths: Path) -> str:
    """Return the disk that has these layers, the lowest first, as QEMU gets them."""
    node: dict[str, object] | None = None
    for path in paths:
        file = {"driver": "file", "filename": str(path)}
        node = {"driver": "qcow2", "discard": "unmap", "file": file, "backing": node}
    return f"json:{json.dumps(node)}"


def layer(path: Path, below: Sequence[Path], *commands: str) -> Path:
    write_overlay(path, SIZE)
    words = [word for command in commands for word in ("-c", command)]
    qemu("qemu-io", "-d", "unmap", *words, chain(*below, path), directory=path.parent)
    return path


@pytest.mark.parametrize("seed", range(4))
def test_a_merged_disk_reads_as_its_layers_did(image: Path, tmp_path: Path, seed: int) -> None:
    numbers = random.Random(seed)
    layers: list[Path] = []
    for number in range(5):
        commands = []
        for _ in range(numbers.randrange(8)):
            offset = numbers.choice((0, 2 << 30)) + (numbers.randrange(24 << 20) & ~511)
            length = 512 * numbers.randrange(1, 4000)
            kind = numbers.choice((f"write -P {number + 3}", "write -z", "write -z -u", "discard"))
            commands.append(f"{kind} {offset} {length}")
        layers.append(layer(tmp_path / f"disk-{number}.qcow2", (image, *layers), *commands))
    merged = tmp_path / "merged.qcow2"
    merge(layers, merged)
    assert check_disk(merged) == SIZE
    assert "No errors" in qemu("qemu-img", "check", str(merged), directory=tmp_path)
    disks = chain(image, merged), chain(image, *layers)
    assert "identical" in qemu("qemu-img", "compare", *disks, directory=tmp_path)
    qemu("qemu-io", "-c", "write -P 9 1M 64k", disks[0], directory=tmp_path)  # and goes on
    assert "No errors" in qemu("qemu-img", "check", str(merged), directory=tmp_path)


def test_what_is_written_twice_is_there_once(image: Path, tmp_path: Path) -> None:
    layers: list[Path] = []
    for number in range(6):
        name, command = f"disk-{number}.qcow2", f"write -P {number} 4M 8M"
        layers.append(layer(tmp_path / name, (image, *layers), command))
    merge(layers, tmp_path / "merged.qcow2")
    assert (tmp_path / "merged.qcow2").stat().st_size < 9 << 20


def test_files_that_are_not_ours(image: Path, tmp_path: Path) -> None:
    good = layer(tmp_path / "disk-0.qcow2", [image], "write 0 64k")
    (tmp_path / "short").write_bytes(b"QFI\xfb")
    small = tmp_path / "small.qcow2"
    qemu("qemu-img", "create", "-f", "qcow2", "-o", "cluster_size=4k", str(small), "1G",
         directory=tmp_path)  # fmt: skip
    cut = layer(tmp_path / "cut.qcow2", [image], "write 0 64k")
    os.truncate(cut, 1 << 16)
    for bad in (tmp_path / "short", small, cut):
        with pytest.raises(MergeError):
            merge([good, bad], tmp_path / "target")
        (tmp_path / "target").unlink(missing_ok=True)
