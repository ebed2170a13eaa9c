"""Raw copies of images' disks, on which the disks of all machines of some drivers are based."""

import os
from pathlib import Path

import pytest

from boincvm.hypervisor.raw_copies import raw_copy


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    root = tmp_path / "root.raw"
    root.write_bytes(b"the image's disk".ljust(1 << 20, b"\0"))
    os.utime(root, (0, 1_000_000_000))
    return root


def copy_of(root: Path) -> Path:
    path, descriptor = raw_copy("place", root, "raw")
    os.close(descriptor)
    assert path.read_bytes() == root.read_bytes()
    return path


def test_it_is_made_once(root: Path) -> None:
    first = copy_of(root)
    status = first.stat()
    assert status.st_mode & 0o777 == 0o444
    assert copy_of(root) == first
    assert first.stat().st_ino == status.st_ino


def test_one_that_somebody_has_written_to_is_made_anew(root: Path) -> None:
    path = copy_of(root)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"a guest's bytes")
    assert copy_of(root) == path


def test_another_image_has_another_copy(root: Path) -> None:
    first = copy_of(root)
    root.write_bytes(b"another".ljust(1 << 20, b"\0"))
    os.utime(root, ns=(0, root.stat().st_mtime_ns + 1))
    assert copy_of(root) != first


def test_the_last_four_are_kept(root: Path) -> None:
    made = []
    for number in range(6):
        os.utime(root, ns=(0, 1_000_000_000 * (100 - number)))
        made.append(copy_of(root))
    assert sum(path.exists() for path in made) == 4
    assert made[-1].exists()
