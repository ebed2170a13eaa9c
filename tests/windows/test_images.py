"""Packed images on Windows: unpacked, listed, in use, and removed."""

import gzip
import sys
from pathlib import Path

import pytest

from boincvm.cli.main import main
from boincvm.errors import ImageDamagedError
from boincvm.image.delivery.patched_pack import open_patched, pack_patch
from boincvm.image.manifest import INITRD
from boincvm.image.pack import pack_image, unpack_image
from boincvm.image.store import ImageStore
from support.packed_images import CONTENTS, members, publish, tar

assert sys.platform == "win32"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    return ImageStore()


def boincvm(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["boincvm", *arguments])
    return main()


def test_an_image_comes_and_goes(
    store: ImageStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = ImageStore(tmp_path / "other")
    digest = publish(other)
    with other.open("base") as image:
        pack_image(image, tmp_path / "base.tar.gz")
    assert boincvm(monkeypatch, "image", "unpack", str(tmp_path / "base.tar.gz"), "mine") == 0
    assert boincvm(monkeypatch, "image", "ls") == 0
    assert "mine" in capsys.readouterr().out
    with store.open("mine") as image:
        assert image.digest == digest
        assert {name: (image.directory / name).read_bytes() for name in CONTENTS} == CONTENTS
        assert boincvm(monkeypatch, "image", "rm", "mine") != 0
        assert "in use" in capsys.readouterr().err
        assert image.kernel.exists()
    assert boincvm(monkeypatch, "image", "rm", "mine") == 0
    assert store.names() == []
    assert list((store.root / "objects").iterdir()) == []


def test_patches_that_follow_a_packed_image(store: ImageStore, tmp_path: Path) -> None:
    """Files of the versions between are removed while others are made of them."""
    other, files = ImageStore(tmp_path / "other"), [tmp_path / "base.tar.gz"]
    publish(other)
    with other.open("base") as image:
        pack_image(image, files[0])
    for number in (1, 2):
        publish(other, content=b"version %d" % number)
        files.append(tmp_path / f"base.{number}.patch")
        with other.open("base") as image:
            pack_patch(image, files[-1], files[:-1], other)
    with open_patched(files[0], files[1:], store, "base") as image:
        assert image.initrd.read_bytes() == CONTENTS[INITRD] + b"version 2"
        assert image.digest == other.digest_of("base")
    assert not (store.root / "unpacking").exists()


def test_a_damaged_one_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    packed = tmp_path / "base.tar.gz"
    packed.write_bytes(gzip.compress(tar(members())[:-2048]))
    with pytest.raises(ImageDamagedError):
        unpack_image(packed, "base", store)
    assert store.names() == []
    assert not (store.root / "unpacking").exists()
