"""What an image's name stood for before it was built again."""

import re
from pathlib import Path

from boincvm.image.replaced import Replaced, publish
from boincvm.image.store import ImageStore
from support.versions import build


def published(store: ImageStore, source: ImageStore, name: str) -> Replaced | None:
    """Publish a copy of `source`'s image `name` as the image `sci` of `store`."""
    with source.open(name) as image:
        copy = store.root / "copy"
        copy.mkdir(parents=True)
        for path in image.directory.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        return publish(store, "sci", copy, image.manifest)[1]


def test_other_content_is_named_and_what_became_of_it(tmp_path: Path) -> None:
    source, store = ImageStore(tmp_path / "source"), ImageStore(tmp_path / "store")
    digests = [build(source, f"version-{number}", number) for number in (0, 1)]
    assert published(store, source, "version-0") is None
    with store.open("sci"):
        held = published(store, source, "version-1")
    assert held is not None
    assert (held.digest, held.is_here) == (digests[0], True)
    assert str(held).endswith(", which is still in use or has another name")
    removed = published(store, source, "version-0")
    assert removed is not None
    assert removed.as_json() == {
        "digest": digests[1],
        "built": removed.built.isoformat(timespec="seconds"),
        "removed": True,
    }
    line = rf"it replaces {digests[1][:12]} of \d{{4}}-\d\d-\d\d \d\d:\d\d, which has been removed"
    assert re.fullmatch(line, str(removed))


def test_equal_content_replaces_nothing(tmp_path: Path) -> None:
    source, store = ImageStore(tmp_path / "source"), ImageStore(tmp_path / "store")
    build(source, "version-0", 0)
    assert published(store, source, "version-0") is None
    with source.open("version-0") as image:
        assert publish(store, "sci", tmp_path / "none", image.manifest)[1] is None
