"""What machines that are off and saved jobs need of the store, whatever becomes of the name."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from boincvm.cli import image as cli_image
from boincvm.errors import HostError, ImageMissingError
from boincvm.image import references
from boincvm.image.listing import list_images
from boincvm.image.store import ImageStore
from support.packed_images import publish

pytestmark = pytest.mark.usefixtures("own_home")


@pytest.fixture
def store(own_home: None) -> ImageStore:
    return ImageStore()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return the directory of a machine."""
    made = tmp_path / "home/data/controller/machines/m1"
    made.mkdir(parents=True, mode=0o700)
    return made


def objects(store: ImageStore) -> list[str]:
    return sorted(path.name for path in (store.root / "objects").iterdir())


def replaced(store: ImageStore) -> list[str]:
    publish(store, content=b"new")
    return []


@pytest.mark.parametrize("lose_name", [replaced, lambda store: store.remove("base")])
def test_what_a_machine_needs_is_kept_without_its_name(
    lose_name: Callable[[ImageStore], list[str]],
    store: ImageStore,
    directory: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = publish(store, content=b"old")
    assert store.keep(old, "base", directory, "m1")
    owners = lose_name(store)
    assert owners in ([], ["m1"])
    with store.open("base", old) as image:
        assert image.digest == old
    assert store.kept_for(directory) == old
    *_, listed = list_images(store)
    assert (listed.name, listed.has_name, listed.in_use_by) == ("base", False, ("m1",))
    cli_image._list(as_json=False)
    assert "formerly base, in use by m1\n" in capsys.readouterr().out
    cli_image._list(as_json=True)
    *_, table = json.loads(capsys.readouterr().out)
    assert (table["name"], table["former_name"], table["in_use_by"]) == (None, "base", ["m1"])
    store.release(directory)  # it is there, or there again
    assert old in objects(store)
    shutil.rmtree(directory)
    store.release(directory)
    assert old not in objects(store)
    with pytest.raises(ImageMissingError, match="of the image base has gone"):
        store.open("base", old)


def test_a_machine_that_somebody_removed_needs_nothing(store: ImageStore, directory: Path) -> None:
    """As by `rm -r`, or by a controller that was killed then."""
    old = publish(store, content=b"old")
    store.keep(old, "base", directory, "m1")
    shutil.rmtree(directory)
    assert store.owners() == {}
    publish(store, content=b"new")
    assert old not in objects(store)
    assert list((store.root / "references").iterdir()) == []


def test_what_is_no_reference_hinders_nobody(store: ImageStore, directory: Path) -> None:
    old = publish(store, content=b"old")
    store.keep(old, "base", directory, "m1")
    references = store.root / "references"
    (path,) = references.iterdir()
    table = json.loads(path.read_text())
    contents = ["", "[" * 9999, "[]", "{}", json.dumps({**table, "digest": 1})]
    for number, text in enumerate(contents):
        (references / str(number)).write_text(text)
    (references / "more").write_text(json.dumps({**table, "more": ""}))
    (references / "zero").write_text(json.dumps({**table, "directory": "\0"}))
    (references / "out").write_text(json.dumps({**table, "digest": "../../x"}))
    replaced(store)
    assert old in objects(store)
    assert {one.name for one in references.iterdir()} == {path.name, "out"}


def test_a_copy_of_all_data_keeps_what_it_needs(
    store: ImageStore, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = publish(store, content=b"old")
    store.keep(old, "base", directory, "m1")
    (tmp_path / "home").rename(tmp_path / "elsewhere")
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "elsewhere"))
    copy = ImageStore()
    replaced(copy)
    assert old in objects(copy)
    assert copy.kept_for(tmp_path / "elsewhere/data/controller/machines/m1") == old


def test_two_need_one_and_one_needs_another_later(
    store: ImageStore, directory: Path, tmp_path: Path
) -> None:
    old = publish(store, content=b"old")
    job = tmp_path / "job"
    job.mkdir()
    store.keep(old, "base", directory, "m1")
    store.keep(old, "base", job, "the job j")
    new = publish(store, content=b"new")
    assert store.owners() == {old: ["m1", "the job j"]}
    store.keep(new, "base", directory, "m1")
    assert store.remove("base") == ["m1"]
    job.rmdir()
    store.release(job)
    assert objects(store) == [new]


def test_a_run_that_holds_it_is_waited_for_by_nobody(store: ImageStore, directory: Path) -> None:
    old = publish(store, content=b"old")
    store.keep(old, "base", directory, "m1")
    replaced(store)
    with store.open("base", old):
        shutil.rmtree(directory)
        store.release(directory)
        assert old in objects(store)
    assert store.collect() == 1
    assert old not in objects(store)


@pytest.mark.parametrize("digest", ["", "none", "../../../etc", "0" * 64])
def test_content_that_there_is_not(digest: str, store: ImageStore, directory: Path) -> None:
    publish(store)
    assert not store.keep(digest, "base", directory, "m1")
    assert store.kept_for(directory) is None
    with pytest.raises(ImageMissingError, match="has gone"):
        store.open("base", digest)


def test_removing_a_name_tells_who_needs_the_content(
    store: ImageStore, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.keep(publish(store), "base", directory, "m1")
    cli_image._remove("base", as_json=False)
    assert "its content is kept as long as it is in use by m1" in capsys.readouterr().out


def test_a_store_on_another_disk(directory: Path, tmp_path: Path) -> None:
    """It is a link, so `..` would lead elsewhere."""
    images = tmp_path / "home/data/images"
    (tmp_path / "disk/images").mkdir(parents=True, mode=0o700)
    images.symlink_to(tmp_path / "disk/images")
    store = ImageStore()
    old = publish(store, content=b"old")
    store.keep(old, "base", directory, "m1")
    replaced(store)
    assert store.owners() == {old: ["m1"]}
    assert old in objects(store)


def test_nothing_is_removed_while_it_cannot_be_read_who_needs_it(
    store: ImageStore, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = publish(store, content=b"old")
    store.keep(old, "base", directory, "m1")

    def refuse(_path: Path) -> IO[bytes]:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(references, "open_own", refuse)
        with pytest.raises(OSError, match="Too many"):
            store.collect()
        with pytest.raises(HostError, match="Too many"):
            store.kept_for(directory)
    assert store.owners() == {old: ["m1"]}
