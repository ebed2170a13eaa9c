"""The file system of an image has a journal, takes no more room for it, and can be told apart."""

from pathlib import Path

from boincvm.hypervisor.qcow2 import write_overlay
from boincvm.image.disk import write_root_disk
from boincvm.image.journal import has_journal
from boincvm.image.tools import run_tool
from boincvm.image.tree import Tree

CLUSTER = 64 << 10
"""Bytes, of a qcow2 file."""


def made(directory: Path, name: str) -> Path:
    tree = directory / "tree"
    tree.mkdir(exist_ok=True)
    (tree / "file").write_bytes(b"content")
    path = directory / name
    write_root_disk(Tree(tree), path, 1 << 30)
    return path


def without_journal(disk: Path) -> Path:
    raw, path = disk.with_suffix(".raw"), disk.with_name("without.qcow2")
    for command in (
        ["qemu-img", "convert", "-O", "raw", disk, raw],
        ["tune2fs", "-O", "^has_journal", raw],
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path],
    ):
        run_tool(command)
    return path


def test_it_has_one(tmp_path: Path) -> None:
    with_one, again = made(tmp_path, "with.qcow2"), made(tmp_path, "again.qcow2")
    without = without_journal(with_one)
    assert (has_journal(with_one), has_journal(without)) == (True, False)
    assert with_one.read_bytes() == again.read_bytes()
    assert with_one.stat().st_size <= without.stat().st_size + 2 * CLUSTER


def test_another_disk_has_none(tmp_path: Path) -> None:
    path = tmp_path / "empty.qcow2"
    write_overlay(path, 1 << 30)
    assert not has_journal(path)
