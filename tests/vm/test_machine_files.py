"""Files to and from a machine of the controller, however it came up."""

import hashlib
import os
from pathlib import Path

import pytest

from support.bench import digests
from support.machine_any import AnyMachine

pytestmark = pytest.mark.timeout(240)
ODD_NAMES = ("two words", "new\nline", "-dash", "back\\slash", "ü", "*")
THEN = 1_234_567_890_123_456_789
LARGE = 5_000_001
"""Bytes: more than goes over the link itself. All that is larger goes by the transfer disk."""


@pytest.fixture
def here(machine_any: AnyMachine, tmp_path: Path) -> Path:
    """Return an empty directory of the user; the guest's work directory is empty, too."""
    machine_any.sh("find /work -mindepth 1 -delete")
    return tmp_path


def test_a_tree_with_odd_names_modes_links_holes_and_times(
    machine_any: AnyMachine, here: Path
) -> None:
    tree = here / "tree"
    (tree / "deep/er").mkdir(parents=True)
    for name in ODD_NAMES:
        (tree / name).write_text(name * 100)
    (tree / "deep/run").write_bytes(b"#!/bin/sh\necho ran\n")
    (tree / "deep/run").chmod(0o751)
    (tree / "deep/er/up").symlink_to("../run")
    (tree / "large").write_bytes(os.urandom(LARGE))
    with (tree / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"middle")
    (tree / "empty").touch()
    for name in ("deep/er/up", "deep/er", "deep/run", "deep", "large", "."):
        os.utime(tree / name, ns=(0, THEN), follow_symlinks=False)
    before = digests(tree)
    machine_any.put(str(tree), "there/tree")
    assert machine_any.exec("there/tree/deep/run").stdout == b"ran\n"
    machine_any.sh("mv there/tree back")
    machine_any.get("back", str(here / "back"))
    back = here / "back"
    assert digests(back) == before
    assert (back / "deep/run").stat().st_mode == (tree / "deep/run").stat().st_mode
    for name in ("deep/run", "deep/er", "deep", "large", "."):
        assert (back / name).stat().st_mtime_ns == THEN, name


@pytest.mark.parametrize("size", [0, 1, 1 << 16, LARGE, 40 << 20])
def test_a_file_of_any_size(machine_any: AnyMachine, here: Path, size: int) -> None:
    """It replaces a larger file completely."""
    (here / "file").write_bytes(os.urandom(size))
    machine_any.sh("head -c 41M /dev/zero >file")
    machine_any.put(str(here / "file"), "file")
    assert int(machine_any.exec("stat", "-c", "%s", "file").stdout) == size
    machine_any.get("file", str(here / "back"))
    assert (here / "back").read_bytes() == (here / "file").read_bytes()


WRITTEN = {
    "by way of the cache": "head -c 20M /dev/urandom >file",
    "past the cache": "dd if=/dev/urandom of=file bs=1M count=20 oflag=direct 2>/dev/null",
    "with a hole": "head -c 9M /dev/urandom >file; head -c 9M /dev/urandom >>file;"
    "truncate -s 40M file; echo end >>file",
    "with room that was never used": "head -c 9M /dev/urandom >file; fallocate -l 20M file",
}


@pytest.mark.parametrize("how", WRITTEN)
def test_a_file_that_has_just_been_written(machine_any: AnyMachine, here: Path, how: str) -> None:
    """The host copies its blocks from the guest's disk, once they are stored there."""
    machine_any.sh(f"mkdir new; cd new; {WRITTEN[how]}")
    digest = machine_any.exec("sha256sum", "new/file").stdout.split()[0].decode()
    machine_any.get("new/file", str(here / "back"))
    assert hashlib.sha256((here / "back").read_bytes()).hexdigest() == digest


def test_one_after_the_other_each_has_its_own_bytes(machine_any: AnyMachine, here: Path) -> None:
    """They share the transfer disk, and a guest caches what it has read."""
    for number in range(3):
        data = bytes([number]) * LARGE
        (here / "file").write_bytes(data)
        machine_any.put(str(here / "file"), f"file{number}")
        machine_any.get(f"file{number}", str(here / "back"))
        assert (here / "back").read_bytes() == data


def test_what_a_guest_may_not_give(machine_any: AnyMachine, here: Path) -> None:
    machine_any.sh(
        "ln -s /etc/passwd link; mkfifo pipe; mkdir tree; ln -s ../../etc/passwd tree/up"
    )
    for name in ("link", "pipe", "tree", "missing", "../etc/passwd"):
        refused = machine_any.home.run(
            "cp", f"{machine_any.name}:{name}", str(here / "back"), code=None
        )
        assert refused.returncode != 0, name
        assert list(here.iterdir()) == []


def test_a_machine_s_disk_that_is_full(machine_any: AnyMachine, here: Path) -> None:
    """This is reported, and the former content still exists."""
    (here / "file").write_bytes(bytes(LARGE))
    machine_any.sh("echo former >file; fallocate -l $(($(stat -f -c %a*%S /work) - 2000000)) big")
    refused = machine_any.home.run("cp", str(here / "file"), f"{machine_any.name}:file", code=None)
    assert refused.returncode != 0
    assert b"the guest's disk is full" in refused.stderr
    assert machine_any.sh("cat file") == b"former\n"
    machine_any.sh("rm big")
    machine_any.put(str(here / "file"), "file")
