"""The store: names, sharing, locks, damage. The images are small inventions."""

import hashlib
import multiprocessing
import threading
from dataclasses import replace as replaced
from pathlib import Path

import pytest

from boincvm.cli.main import main
from boincvm.errors import ImageDamagedError, ImageMissingError, UsageError
from boincvm.image import names, verify
from boincvm.image.listing import describe, list_images
from boincvm.image.manifest import (
    INITRD,
    KERNEL,
    MANIFEST,
    ROOT,
    ContentFile,
    Manifest,
    Package,
    Recipe,
    decode_manifest,
)
from boincvm.image.store import ImageStore


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))


@pytest.fixture
def store() -> ImageStore:
    return ImageStore()


def make_object(directory: Path, content: bytes = b"content") -> Manifest:
    """Make what a build leaves: three files and their manifest."""
    directory.mkdir(parents=True)
    files = []
    for name in (INITRD, KERNEL, ROOT):
        (directory / name).write_bytes(content + name.encode())
        digest = hashlib.sha256(content + name.encode()).hexdigest()
        files.append(ContentFile(name, len(content) + len(name), digest))
    manifest = Manifest(
        architecture="amd64",
        recipe=Recipe(1, "bookworm", ("bc",), "0" * 64),
        kernel_release="6.1.0",
        agent_version="1",
        agent_sha256="1" * 64,
        packages=(Package("bc", "1.07", "amd64", scripts=True),),
        files=tuple(files),
    )
    (directory / MANIFEST).write_bytes(manifest.encode())
    for path in directory.iterdir():
        path.chmod(0o444)
    return manifest


def publish(store: ImageStore, name: str, content: bytes = b"content") -> str:
    directory = store.builds / f"{name}-object"
    return store.publish(name, directory, make_object(directory, content))


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def test_a_published_image_opens(store):
    digest = publish(store, "base")
    with store.open("base") as image:
        assert image.digest == digest == image.manifest.digest
        assert image.kernel.read_bytes() == b"contentkernel"
        assert image.initrd.parent == image.root.parent == image.directory
    assert store.names() == ["base"]


def test_a_store_that_does_not_exist_is_empty(store):
    assert store.names() == []
    assert list_images(store) == []


def test_a_missing_image_names_the_command_that_builds_it(store):
    with pytest.raises(ImageMissingError) as caught:
        store.open("sci")
    assert caught.value.hint == "boincvm image build sci"


def test_a_missing_image_that_is_like_none_names_those_that_exist(store):
    for number in range(9):
        publish(store, f"base{number}")
    with pytest.raises(ImageMissingError) as caught:
        store.open("nupmy")
    some = ", ".join(f"base{number}" for number in range(8))
    there = f"images here: {some} and more (boincvm image ls)"
    assert caught.value.hint == f"{there}; to get nupmy: boincvm image build nupmy"
    with pytest.raises(ImageMissingError) as caught:
        store.remove("nosuch")
    assert caught.value.hint == there


def test_nobody_is_advised_to_build_what_is_to_be_removed(store, capsys):
    assert main(["image", "rm", "nosuch"]) == 220
    assert capsys.readouterr().err.endswith("  there are no images: boincvm image ls\n")
    publish(store, "base")
    assert main(["image", "rm", "nosuch"]) == 220
    assert capsys.readouterr().err.endswith("  images here: base (boincvm image ls)\n")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "A", "a/b", "-a", "a" * 65, "a\n", "ä"])
def test_bad_names_are_refused(store, name):
    with pytest.raises(UsageError):
        store.open(name)
    with pytest.raises(UsageError):
        store.remove(name)


@pytest.mark.parametrize("name", ["nul", "con", "com1.x", "a."])
def test_names_that_windows_cannot_store_are_refused(store, name, monkeypatch):
    with pytest.raises(UsageError, match="is not an image's name") as caught:
        store.open(name)
    assert "not a device of Windows'" in caught.value.hint
    monkeypatch.setattr(names, "is_portable_part", lambda name: True)
    publish(store, name)  # as boincvm did earlier
    monkeypatch.undo()
    store.remove(name)
    assert store.names() == []


def test_names_of_equal_content_share_one_object(store):
    assert publish(store, "one") == publish(store, "two")
    assert len(list((store.root / "objects").iterdir())) == 1
    store.remove("one")
    with store.open("two") as image:
        assert image.name == "two"
    store.remove("two")
    assert list((store.root / "objects").iterdir()) == []


@pytest.mark.parametrize("name", [KERNEL, INITRD, ROOT])
@pytest.mark.parametrize("verified", [False, True])
def test_an_altered_file_is_found(store, name, verified):
    publish(store, "base")
    with store.open("base") as image:
        path = image.directory / name
        if not verified:
            verify.forget(image.digest)
    replace(path, path.read_bytes()[::-1])
    with pytest.raises(ImageDamagedError) as caught:
        store.open("base")
    assert str(path) in caught.value.message
    assert caught.value.hint == "boincvm image rm base && boincvm image build base"


def test_a_truncated_file_is_found(store):
    publish(store, "base")
    with store.open("base") as image:
        replace(image.root, b"c")
    with pytest.raises(ImageDamagedError, match="1 bytes"):
        store.open("base")


@pytest.mark.parametrize("name", [KERNEL, ROOT, MANIFEST])
def test_a_missing_file_is_found_and_does_not_stop_remove(store, name):
    digest = publish(store, "base")
    (store.root / "objects" / digest / name).unlink()
    with pytest.raises(ImageDamagedError, match=name):
        store.open("base")
    store.remove("base")
    assert store.names() == []


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"format": 2}', b"\xff", b"[" * 9999])
def test_an_altered_manifest_is_found(store, text):
    digest = publish(store, "base")
    replace(store.root / "objects" / digest / MANIFEST, text)
    with pytest.raises(ImageDamagedError):
        store.open("base")
    assert list_images(store)[0].fault


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"format":2}', b'{"format":1,"recipe":1}', b"[" * 9999]
)
def test_what_is_no_manifest_is_refused(text, tmp_path):
    with pytest.raises(ImageDamagedError, match="not a manifest"):
        decode_manifest(text, tmp_path)


def test_a_manifest_of_other_content_is_found(store):
    digest = publish(store, "base")
    path = store.root / "objects" / digest / MANIFEST
    replace(path, path.read_bytes().replace(b'"1.07"', b'"1.08"'))
    with pytest.raises(ImageDamagedError, match="altered"):
        store.open("base")


def test_a_name_file_with_something_else_is_damage(store):
    publish(store, "base")
    (store.root / "names" / "base").write_text("../../etc\n")
    with pytest.raises(ImageDamagedError):
        store.open("base")
    store.remove("base")


def test_an_unchanged_image_is_hashed_once(store, monkeypatch):
    digest = publish(store, "base")
    verify.forget(digest)
    hashed = []
    original = hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda *given: hashed.append(given) or original(*given)
    )
    for _ in range(3):
        store.open("base").close()
    assert len(hashed) == 3


def test_a_cache_that_cannot_be_written_is_no_hindrance(store, monkeypatch, tmp_path):
    publish(store, "base")
    (tmp_path / "file").touch()
    monkeypatch.setattr(verify, "cache_directory", lambda: tmp_path / "file")
    store.open("base").close()


def test_an_image_in_use_is_not_removed(store):
    publish(store, "base")
    with store.open("base"), store.open("base"):
        with pytest.raises(UsageError, match="in use"):
            store.remove("base")
        assert store.names() == ["base"]
    store.remove("base")


def _hold(name: str, ready: "multiprocessing.synchronize.Event") -> None:
    image = ImageStore().open(name)
    ready.set()
    threading.Event().wait()
    image.close()


def test_a_run_that_was_killed_holds_nothing(store):
    publish(store, "base")
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=("base", ready))
    process.start()
    assert ready.wait(30)
    with pytest.raises(UsageError, match="in use"):
        store.remove("base")
    process.kill()
    process.join()
    store.remove("base")


def test_a_rebuilt_name_keeps_the_old_object_while_it_is_in_use(store):
    publish(store, "base", b"old")
    with store.open("base") as image:
        publish(store, "base", b"new")
        assert image.kernel.exists()
    publish(store, "other", b"other")
    assert not image.directory.exists()


def test_publishing_mends_a_damaged_object(store):
    digest = publish(store, "base")
    replace(store.root / "objects" / digest / ROOT, b"")
    publish(store, "base")
    store.open("base").close()


def test_closing_twice_is_harmless(store):
    publish(store, "base")
    image = store.open("base")
    image.close()
    image.close()


def test_listing_and_describing(store):
    publish(store, "base")
    (listed,) = list_images(store)
    assert (listed.name, listed.packages, listed.fault) == ("base", 1, "")
    assert listed.as_json()["built"]
    with store.open("base") as image:
        text = describe(image)
    assert "* bc 1.07" in text
    assert "Debian bookworm" in text


def test_the_manifest_survives_its_own_encoding(tmp_path):
    manifest = make_object(tmp_path / "object")
    assert decode_manifest(manifest.encode(), tmp_path) == manifest
    assert manifest.size == sum(file.size for file in manifest.files)


@pytest.mark.parametrize("figure", [b"-1", b'"96"', b"true", b"null", b"1.5"])
def test_a_figure_of_memory_that_is_none_is_damage(figure: bytes, tmp_path: Path) -> None:
    manifest = make_object(tmp_path / "object")
    text = manifest.encode().replace(b'"packages":[{', b'"least_memory":%b,"packages":[{' % figure)
    with pytest.raises(ImageDamagedError, match="least_memory"):
        decode_manifest(text, tmp_path)


def test_the_figure_of_memory_is_kept_and_an_older_manifest_lacks_it(tmp_path: Path) -> None:
    older = make_object(tmp_path / "object")
    assert b"least_memory" not in older.encode()
    newer = replaced(older, least_memory=96 << 20)
    assert decode_manifest(newer.encode(), tmp_path) == newer
    assert decode_manifest(older.encode(), tmp_path) == older
