"""What tests of packed images share."""

from pathlib import Path

import pytest

from boincvm.image.pack import pack_image
from boincvm.image.store import ImageStore
from support.packed_images import publish


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the test a home without images."""
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Return a packed image, as `pack_image` makes it from another store."""
    source = ImageStore(tmp_path / "source")
    publish(source)
    with source.open("base") as image:
        pack_image(image, tmp_path / "base.tar.gz")
    return tmp_path / "base.tar.gz"
