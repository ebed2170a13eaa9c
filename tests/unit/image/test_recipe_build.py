"""Building a recipe: which packages, which name, and what becomes of the lock file."""

from dataclasses import replace
from pathlib import Path

import pytest

from boincvm.cli.main import main
from boincvm.errors import HostDiskFullError, ImageBuildError, JobFileError, UsageError
from boincvm.image import recipe_build
from boincvm.image.architectures import AMD64
from boincvm.image.build import Built
from boincvm.image.lock import Asked, Distribution, Lock, LockedPackage, read_lock
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
from boincvm.image.package_set import PackageRequest, fetch_debian, is_made_of
from boincvm.image.progress import Progress
from boincvm.image.recipe_build import BuiltRecipe, build_recipe
from boincvm.image.store import ImageStore
from boincvm.machine.build_machine import booted
from boincvm.machine.spec import check_memory

ASKED = Asked("bookworm", "amd64", "debian", ("bc",), False, ())
LOCK = Lock(ASKED, False, (LockedPackage("bc", "1", "amd64", "1" * 64),))
NEWER = replace(LOCK, packages=(LockedPackage("bc", "2", "amd64", "2" * 64),))


def manifest(**changed: object) -> Manifest:
    files = tuple(ContentFile(name, 1, "0" * 64) for name in (INITRD, KERNEL, ROOT))
    recipe = Recipe(5, "bookworm", ("bc",), "g")
    packages = (Package("bc", "1", "amd64", False),)
    made = Manifest("amd64", recipe, "6", "1", "0", packages, files)
    return replace(made, **changed)  # type: ignore[arg-type]


class Builds:
    """Stands for builds, all of which give the newest packages."""

    def __init__(self, newest: Lock) -> None:
        self.newest = newest
        self.asked: list[dict[str, object]] = []

    def build_image(self, name: str, packages: tuple[str, ...], **parts: object) -> Built:
        self.asked.append({"name": name, "packages": packages, **parts})
        made = self.newest if parts["locks"] else None
        return Built(name, "d" * 64, manifest(), fresh=True, lock=made)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> Builds:
    builds = Builds(LOCK)
    monkeypatch.setattr(recipe_build, "build_image", builds.build_image)
    return builds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "own" / "image.toml"
    path.parent.mkdir()
    path.write_text("packages = ['bc']\nmemory = '1G'\n")
    return path


def built(path: Path, *, update: bool = False, name: str | None = None) -> BuiltRecipe:
    return build_recipe(path, update=update, name=name, boot=booted, progress=Progress(None))


def test_the_first_build_writes_the_lock_file_and_later_ones_use_it(
    builds: Builds, path: Path
) -> None:
    assert built(path).changes is None
    assert read_lock(path.with_name("image.lock")) == LOCK
    builds.newest = NEWER
    assert built(path).changes is None
    assert [asked["lock"] for asked in builds.asked] == [None, LOCK]
    assert read_lock(path.with_name("image.lock")) == LOCK
    assert builds.asked[0]["name"] == "own"
    assert builds.asked[0]["memory"] == 1 << 30


def test_an_update_renews_the_lock_file_and_says_what_changed(builds: Builds, path: Path) -> None:
    built(path)
    builds.newest = NEWER
    done = built(path, update=True)
    assert done.changes is not None
    assert done.changes.changed == {"bc": ("1", "2")}
    assert builds.asked[-1]["lock"] is None
    assert read_lock(path.with_name("image.lock")) == NEWER


def test_an_update_renews_a_lock_file_that_cannot_be_read(builds: Builds, path: Path) -> None:
    path.with_name("image.lock").write_text("format = 7\n")
    with pytest.raises(JobFileError, match=r"image\.lock:1: found 7, expected 1"):
        built(path)
    assert built(path, update=True).changes is None
    assert read_lock(path.with_name("image.lock")) == LOCK


def test_a_recipe_that_has_changed_needs_an_update(builds: Builds, path: Path) -> None:
    built(path)
    path.write_text("packages = ['bc', 'dc']\n")
    with pytest.raises(JobFileError, match=r"expected \['bc', 'dc'\], as in the recipe"):
        built(path)
    assert len(builds.asked) == 1


def test_a_failed_build_leaves_the_lock_file(
    builds: Builds, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(path)

    def fail(*_: object, **__: object) -> Built:
        raise HostDiskFullError("full")

    monkeypatch.setattr(recipe_build, "build_image", fail)
    with pytest.raises(HostDiskFullError):
        built(path, update=True)
    assert read_lock(path.with_name("image.lock")) == LOCK


def test_the_images_name(builds: Builds, path: Path, tmp_path: Path) -> None:
    built(path, name="given")
    path.with_name("image.lock").unlink()
    path.write_text("name = 'said'\npackages = ['bc']\n")
    built(path)
    assert [asked["name"] for asked in builds.asked] == ["given", "said"]
    odd = tmp_path / "An Image"
    odd.mkdir()
    (odd / "image.toml").touch()
    with pytest.raises(UsageError, match="none of an image: 'An Image'"):
        built(odd / "image.toml")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--package", "dc"], "found --package with a recipe"),
        (["--kernel", "small"], "found --kernel with a recipe"),
        (["--suite", "bookworm"], "found --suite with a recipe"),
        (["--update", "--if-missing"], "found --update and --if-missing"),
    ],
)
def test_options_that_a_recipe_takes_the_place_of(
    path: Path, capsys: pytest.CaptureFixture[str], options: list[str], why: str
) -> None:
    assert main(["image", "build", *options, str(path.parent)]) == 210
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--update"], ["--name", "x"]])
def test_options_for_recipes_only(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["image", "build", *options, "sci"]) == 210
    assert f"found {options[0]} without a recipe" in capsys.readouterr().err


def test_a_lock_file_without_what_every_image_needs(tmp_path: Path) -> None:
    recipe = Recipe(5, "bookworm", ("bc",), "g", pip=("numpy",))
    request = PackageRequest(recipe, AMD64, lock=LOCK)
    with pytest.raises(ImageBuildError, match=r"python3, .*libstdc.*, packages of PyPI") as refused:
        fetch_debian(tmp_path, request, Progress(None))
    assert "--update" in refused.value.hint


def test_an_image_is_up_to_date_only_with_the_versions_of_the_lock_file() -> None:
    made = manifest(python_packages=("ruamel_yaml==1",))
    lock = replace(LOCK, python=(Distribution("ruamel.yaml", "1", "0" * 64),))
    assert is_made_of(made, lock)
    assert not is_made_of(made, LOCK)
    assert not is_made_of(made, replace(NEWER, python=lock.python))


def test_a_machine_needs_the_memory_that_a_recipe_asks_for(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    for name, least in (("large", 3 << 30), ("old", None)):
        made = store.builds / name
        made.mkdir(parents=True)
        content = manifest(least_memory=least)
        for file in (INITRD, KERNEL, ROOT):
            (made / file).write_text("x")
        (made / MANIFEST).write_bytes(content.encode())
        store.publish(name, made, content)
    with (
        store.open_unverified("large") as image,
        pytest.raises(UsageError, match=r"needs 3\.0 GiB"),
    ):
        check_memory(2 << 30, image)
    with store.open_unverified("large") as image:
        check_memory(3 << 30, image)
        assert image.least_memory == image.manifest.least_memory
    with store.open_unverified("old") as image:
        check_memory(64 << 20, image)


def test_the_manifest_has_the_script_and_the_memory_only_where_they_were_asked_for() -> None:
    assert b'"script"' not in manifest().encode()
    assert b'"memory"' not in manifest().encode()
    asked = Recipe(5, "bookworm", (), "g", script="5" * 64, memory=1 << 30)
    text = manifest(recipe=asked).encode()
    assert decode_manifest(text, Path("x")).recipe == asked
