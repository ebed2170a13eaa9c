"""What a build says while it runs: soon what is wrong, what it waits for, that it cleans up."""

import io
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from boincvm.errors import ImageBuildError
from boincvm.host import locks
from boincvm.image import build, packages
from boincvm.image.architectures import AMD64
from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT, Manifest, Package, Recipe
from boincvm.image.object_files import describe
from boincvm.image.package_set import PackageRequest, PackageSet
from boincvm.image.progress import Progress
from boincvm.image.store import ImageStore
from boincvm.image.unpack import Control
from boincvm.machine.build_machine import booted
from boincvm.paths import cache_directory
from support.bench import until

pytestmark = pytest.mark.timeout(120)

RECIPE = Recipe(5, "bookworm", ("gcc",), "g")


class UnpackingError(Exception):
    """The build has come to the unpacking of packages, which takes long."""


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))


def build_until_unpacking(
    monkeypatch: pytest.MonkeyPatch, directory: Path, recipe: Recipe, *, are_configured: bool
) -> str:
    """Build of a package gcc until it is to be unpacked; return what was shown by then."""
    package = Package("gcc", "1", "amd64", False)
    fetched = PackageSet([], [Control("", package, False, 0, {})], are_configured)

    def unpack(*_: object) -> None:
        raise UnpackingError

    monkeypatch.setattr(build, "_fetch", lambda *_: fetched)
    monkeypatch.setattr(build, "_unpack", unpack)
    parts = build._Parts(PackageRequest(recipe, AMD64), None, (), None, None, locks=False)
    stream = io.StringIO()
    with pytest.raises(UnpackingError):
        build._build(directory, parts, booted, Progress(stream.write))
    return stream.getvalue()


def test_a_compiler_without_headers_is_said_before_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shown = build_until_unpacking(monkeypatch, tmp_path, RECIPE, are_configured=False)
    assert "[ note  ] a compiler without its headers: add the package libc6-dev\n" in shown
    assert "scripts" not in shown


def test_scripts_that_take_minutes_are_said_before_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shown = build_until_unpacking(monkeypatch, tmp_path, RECIPE, are_configured=True)
    assert "will run in a machine; without KVM, that takes minutes\n" in shown


def test_a_wrong_package_of_pypi_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    recipe = replace(RECIPE, pip=("nosuch",))
    with pytest.raises(ImageBuildError, match="no wheel of nosuch"):
        build_until_unpacking(monkeypatch, tmp_path, recipe, are_configured=False)


def test_what_a_build_waited_for_is_cleared_when_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stream = io.StringIO()
    progress = Progress(stream.write, is_live=True)
    shown: list[str] = []

    def fetch(*_: object, **__: object) -> list[str]:
        shown.append(stream.getvalue())
        return []

    def work() -> None:
        with progress.step("fetching packages"):
            packages.fetch_packages((), "bookworm", None, tmp_path, progress)

    monkeypatch.setattr(packages, "_fetch", fetch)
    other = threading.Thread(target=work)
    with locks.exclusive(cache_directory() / "packages" / "lock"):
        other.start()
        until(lambda: "waiting for another build" in stream.getvalue(), 20)
    other.join(20)
    assert not other.is_alive()
    assert shown[0].endswith("\r\x1b[K[ ...   ] fetching packages")


def test_the_removal_of_a_builds_files_is_a_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def make(directory: Path, *_: object) -> tuple[Manifest, None]:
        made = directory / "object"
        made.mkdir()
        for name in (INITRD, KERNEL, ROOT):
            (made / name).write_text("x")
        files = tuple(describe(made / name) for name in (INITRD, KERNEL, ROOT))
        manifest = Manifest("amd64", RECIPE, "6", "1", "0", (), files)
        (made / MANIFEST).write_bytes(manifest.encode())
        return manifest, None

    monkeypatch.setattr(build.tools, "check_host", lambda *_: None)
    monkeypatch.setattr(build.tools, "check_space", lambda *_: None)
    monkeypatch.setattr(build, "_build", make)
    stream = io.StringIO()
    store = ImageStore(tmp_path / "store")
    build.build_image("new", boot=booted, progress=Progress(stream.write), store=store)
    assert [line.partition("] ")[2] for line in stream.getvalue().splitlines()] == [
        "  putting the image in its place",
        "  removing temporary files",
        "building image new",
    ]
    assert [path.name for path in store.builds.iterdir()] == ["lock"]


def test_an_interrupted_build_says_that_it_cleans_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build.tools, "check_host", interrupt)
    stream = io.StringIO()
    store = ImageStore(tmp_path / "store")
    progress = Progress(stream.write, is_live=True)
    with pytest.raises(KeyboardInterrupt):
        build.build_image("new", boot=booted, progress=progress, store=store)
    assert "[ ...   ]   cleaning up" in stream.getvalue()
    assert stream.getvalue().endswith("building image new: failed\n")
