"""What tests of published images share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from boincvm.image.delivery import keys
from boincvm.image.delivery.publish import publish_images
from boincvm.image.delivery.trust import Trust
from boincvm.image.store import ImageStore
from support.image_server import ImageServer, serving
from support.versions import build


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boincvm.image.delivery.trust._PAUSE", 0)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    keys.make_key(tmp_path / "key.pem")
    return tmp_path / "key.pem"


@pytest.fixture
def trust(key: Path) -> Trust:
    return Trust(keys.public_key(key))


@pytest.fixture
def www(tmp_path: Path) -> Path:
    directory = tmp_path / "www"
    directory.mkdir()
    return directory


@pytest.fixture
def server(www: Path) -> Iterator[ImageServer]:
    with serving(www) as found:
        yield found


@pytest.fixture
def publisher(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "publisher")


@pytest.fixture
def digest(publisher: ImageStore, www: Path, key: Path) -> str:
    """Publish an image in `www`; return its digest."""
    digest = build(publisher, "sci", 0)
    publish_images(["sci"], www, key, publisher)
    return digest
