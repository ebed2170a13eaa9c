"""Our own guest kernels: what is configured, stored and refused, without compiling."""

from dataclasses import replace
from pathlib import Path

import pytest

from boincvm.errors import ImageBuildError, ImageDamagedError, ImageMissingError, UsageError
from boincvm.image.build import build_image
from boincvm.image.build_inputs import make_recipe
from boincvm.image.kernels import store
from boincvm.image.kernels.build import build_kernel
from boincvm.image.kernels.changes import Change, Edit, apply
from boincvm.image.kernels.configuration import CONFIGURATIONS, unmet
from boincvm.image.kernels.store import KernelRecipe
from boincvm.image.manifest import INITRD, KERNEL, ROOT, ContentFile, Manifest, decode_manifest
from boincvm.image.progress import Progress
from boincvm.machine.build_machine import booted
from boincvm.paths import guest_kernel, kernels_directory

RECIPE = KernelRecipe(1, "x86_64", "linux-source-7.3 7.3.4-1", "f" * 64, "gcc 12; ld 2.40")
FILES = tuple(ContentFile(name, 1, "0" * 64) for name in (INITRD, KERNEL, ROOT))
QUIET = Progress(None)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))


def published(
    name: str, content: bytes = b"\x7fELF and more", recipe: KernelRecipe = RECIPE
) -> store.GuestKernel:
    directory = kernels_directory() / "builds/object"
    directory.mkdir(mode=0o700, parents=True)
    (directory / "kernel").write_bytes(content)
    return store.publish(name, directory, "7.3.4", recipe)


def test_a_kernel_is_listed_with_what_it_was_built_from() -> None:
    assert store.list_kernels() == []
    kernel = published("small")
    assert store.list_kernels() == [kernel]
    assert (kernel.name, kernel.release, kernel.recipe) == ("small", "7.3.4", RECIPE)
    assert store.contents(kernel) == b"\x7fELF and more"
    assert kernel.path == guest_kernel("small")
    assert kernel.path.stat().st_mode & 0o777 == 0o555


def test_a_second_kernel_takes_the_place_of_the_first() -> None:
    first = published("uml")
    second = published("uml", b"\x7fELF another")
    assert store.read("uml") == second
    assert second.sha256 != first.sha256
    assert sorted(path.name for path in kernels_directory().iterdir()) == ["builds", "lock", "uml"]


def test_a_removed_kernel_is_gone() -> None:
    published("small")
    store.remove("small")
    with pytest.raises(ImageMissingError, match="was not built here") as caught:
        store.read("small")
    assert caught.value.hint == "build it: boincvm image kernel build"
    with pytest.raises(ImageMissingError):
        store.remove("small")


@pytest.mark.parametrize("name", ["../small", "", "large", "small/"])
def test_names_that_no_kernel_has(name: str) -> None:
    for refuse in (store.read, store.remove):
        with pytest.raises(UsageError, match="there is no kernel"):
            refuse(name)
    with pytest.raises(UsageError):
        build_kernel(name, progress=QUIET)


def test_a_kernel_that_was_altered_is_not_used() -> None:
    kernel = published("small")
    kernel.path.chmod(0o755)
    kernel.path.write_bytes(b"\x7fELF and MORE")
    with pytest.raises(ImageDamagedError, match="altered") as caught:
        store.contents(kernel)
    assert caught.value.hint == "boincvm image kernel rm small && boincvm image kernel build"


@pytest.mark.parametrize(
    "table",
    [
        *(b"", b"[]", b"{}", b'{"format": 2}', b'{"format": 1, "recipe": 3}', b"[" * 5000),
        b'{"format":1,"release":1,"sha256":"","size":0,"recipe":{}}',
    ],
)
def test_a_damaged_table_is_reported(table: bytes) -> None:
    path = published("small").path.with_name("kernel.json")
    path.write_bytes(table)
    with pytest.raises(ImageDamagedError, match=r"kernel\.json cannot be read"):
        store.read("small")


def test_each_part_of_a_recipe_makes_another_kernel() -> None:
    others = [
        replace(RECIPE, builder=2),
        replace(RECIPE, architecture="um"),
        replace(RECIPE, source="linux-source-7.3 7.3.5-1"),
        replace(RECIPE, fragment="e" * 64),
        replace(RECIPE, compiler="gcc 13; ld 2.40"),
    ]
    assert len({recipe.key for recipe in (RECIPE, *others)}) == 1 + len(others)


def test_options_that_the_sources_do_not_follow_are_found() -> None:
    fragment = "# A comment\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=n\nCONFIG_D=y\nCONFIG_E=64\n"
    configured = "CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\nCONFIG_E=32\n"
    assert unmet(fragment, configured) == ["CONFIG_B=n", "CONFIG_D=y", "CONFIG_E=64"]


def test_changes_of_the_sources_are_made_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one two\n")
    (tmp_path / "b").write_text("three three\n")
    here = Change("what is here", (Edit("a", "one", "1"), Edit("a", "two", "2")))
    twice = Change("what is there twice", (Edit("a", "1", "x"), Edit("b", "three", "3")))
    gone = Change("what is gone", (Edit("c", "four", "4"),))
    assert apply(tmp_path, (here, twice, gone)) == [twice.what, gone.what]
    assert (tmp_path / "a").read_text() == "1 2\n"
    assert (tmp_path / "b").read_text() == "three three\n"


def test_another_change_makes_another_kernel() -> None:
    uml = CONFIGURATIONS["uml"]
    assert replace(uml, changes=uml.changes[1:]).digest != uml.digest


def test_no_option_is_given_twice() -> None:
    for configuration in CONFIGURATIONS.values():
        names = [
            line.partition("=")[0]
            for line in configuration.fragment.splitlines()
            if not line.startswith("#")
        ]
        assert sorted(set(names)) == sorted(names)


def test_all_that_a_build_lacks_is_reported_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boincvm.image.kernels.toolchain.search_path", lambda: str(tmp_path))
    with pytest.raises(ImageBuildError, match=r"not installed: .*bison, .*flex") as caught:
        build_kernel("uml", progress=QUIET)
    assert "apt-get install" in caught.value.hint
    assert " flex " in caught.value.hint


def test_a_kernel_that_is_there_needs_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boincvm.image.kernels.toolchain.search_path", lambda: str(tmp_path))
    kernel = published("small", recipe=replace(RECIPE, fragment=CONFIGURATIONS["small"].digest))
    built = build_kernel("small", if_missing=True, progress=QUIET)
    assert (built.kernel, built.fresh) == (kernel, False)


def test_an_image_takes_only_a_kernel_that_is_there() -> None:
    with pytest.raises(ImageMissingError, match="the kernel small was not built here"):
        build_image("x", kernel="small", boot=booted, progress=QUIET)
    with pytest.raises(UsageError, match="no image holds it"):
        build_image("x", kernel="uml", boot=booted, progress=QUIET)
    with pytest.raises(UsageError, match="there is no kernel"):
        build_image("x", kernel="odd", boot=booted, progress=QUIET)
    with pytest.raises(UsageError, match="small is for amd64, and the image for arm64"):
        build_image("x", kernel="small", architecture="arm64", boot=booted, progress=QUIET)


def test_an_image_s_recipe_names_its_kernel() -> None:
    kernel = published("small")
    debian, small = make_recipe((), "bookworm"), make_recipe((), "bookworm", kernel)
    assert (debian.kernel, small.kernel) == ("", kernel.sha256)
    for recipe in (debian, small):
        manifest = Manifest("amd64", recipe, "7.3.4", "0", "0", (), FILES)
        assert decode_manifest(manifest.encode(), Path("m")).recipe == recipe
    assert b'"kernel":' not in Manifest("amd64", debian, "7.3.4", "0", "0", (), FILES).encode()


@pytest.mark.parametrize(
    "location",
    [
        {"suite": "trixie main\ndeb [trusted=yes] http://mirror.example/ x"},
        {"suite": "-x"},
        {"suite": ""},
        {"mirror": "http://mirror.example/ x\ndeb [trusted=yes] http://mirror.example/"},
        {"mirror": "/srv"},
    ],
)
def test_what_apt_would_read_as_more_than_a_name_is_refused(location: dict[str, str]) -> None:
    """Such a line could switch off the check of signatures."""
    with pytest.raises(UsageError, match="is not a"):
        build_kernel("small", **location, progress=QUIET)
    assert not kernels_directory().exists()
