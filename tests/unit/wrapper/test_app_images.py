"""Images that come as files of app versions: in use, used again, and removed when nobody has."""

import os
import time
from pathlib import Path

import pytest

from boincvm.image.pack import pack_image
from boincvm.image.store import Image, ImageStore
from boincvm.wrapper.tasks import app_images
from boincvm.wrapper.tasks.app_images import IMAGE_DIRECTORY, open_app_image
from support.versions import build

DAY = 86400.0


class Project:
    """A project's directory, and a slot whose logical names are those of files in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "project"
        self.directory.mkdir()
        self.store = ImageStore(self.directory / IMAGE_DIRECTORY)
        publisher = ImageStore(directory / "publisher")
        self.digests = [build(publisher, f"version-{number}", number) for number in (0, 1)]
        for number in (0, 1):
            with publisher.open(f"version-{number}") as image:
                pack_image(image, self.directory / f"image_{number}.tar.gz")

    def open(self, name: str) -> Image:
        image = open_app_image(name, self.directory.joinpath, self.directory)
        assert image is not None
        return image

    def last_used(self, name: str, days: float) -> None:
        """Have the image be used last so many days ago."""
        then = time.time() - days * DAY
        os.utime(self.store.root / "names" / name, (then, then))

    def objects(self) -> set[str]:
        return {path.name for path in (self.store.root / "objects").iterdir()}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    return Project(tmp_path)


def test_what_no_task_has_used_for_long_goes(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    """With its golden snapshots."""
    project.open("image_0.tar.gz").close()
    golden = project.store.golden / f"{project.digests[0][:16]}-512M"
    golden.mkdir(parents=True)
    project.last_used("image_0", 31)
    project.open("image_1.tar.gz").close()
    assert project.store.names() == ["image_1"]
    assert project.objects() == {project.digests[1]}
    assert not golden.exists()
    assert (
        "the image image_0, which no task has used for long, was removed" in capfd.readouterr().err
    )
    project.open("image_0.tar.gz").close()  # a task that needs it after all
    assert project.store.names() == ["image_0", "image_1"]


def test_what_a_task_has_used_stays(project: Project) -> None:
    project.open("image_0.tar.gz").close()
    project.last_used("image_0", 31)
    project.open("image_0.tar.gz").close()  # which is noted
    project.open("image_1.tar.gz").close()
    project.last_used("image_1", 29)
    project.open("image_0.tar.gz").close()
    assert project.store.names() == ["image_0", "image_1"]


def test_what_a_task_runs_stays(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    with project.open("image_0.tar.gz") as image:
        project.last_used("image_0", 31)
        project.open("image_1.tar.gz").close()
        assert image.root.exists()
    assert project.store.names() == ["image_0", "image_1"]
    assert "image_0, which no task has used for long, stays: " in capfd.readouterr().err


@pytest.mark.parametrize("now", [0.0, 4294967295.0], ids=["1970", "2106"])
def test_a_clock_that_has_jumped_takes_nothing_from_a_task(
    project: Project, monkeypatch: pytest.MonkeyPatch, now: float
) -> None:
    """What runs stays, and what a later task needs is unpacked again."""
    running = project.open("image_0.tar.gz")
    monkeypatch.setattr(time, "time", lambda: now)
    project.open("image_1.tar.gz").close()
    assert running.root.exists()
    os.utime(project.store.root / "names" / "image_1", (now, now))
    monkeypatch.undo()
    monkeypatch.setenv("BOINCVM_HOME", str(project.directory / "home"))
    project.open("image_0.tar.gz").close()
    with project.open("image_1.tar.gz") as image:
        assert image.root.exists()
    assert running.root.exists()
    running.close()


def test_an_image_that_a_task_begins_to_use_stays(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which found it just after it was found to be unused."""
    project.open("image_0.tar.gz").close()
    project.last_used("image_0", 31)

    def used_meanwhile(store: ImageStore, begin: float) -> list[str]:
        names = find(store, begin)
        store.note_use("image_0")
        return names

    find = ImageStore.names_unused_since
    monkeypatch.setattr(ImageStore, "names_unused_since", used_meanwhile)
    project.open("image_1.tar.gz").close()
    assert project.store.names() == ["image_0", "image_1"]


def test_a_name_that_is_no_file_of_the_app_version(project: Project) -> None:
    assert open_app_image("sci", project.directory.joinpath, project.directory) is None
    assert not project.store.root.exists()


def test_an_image_is_opened_though_nothing_can_be_removed(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(ImageStore, "note_use", refuse)
    project.open("image_0.tar.gz").close()
    assert "images that no task has used for long stay: " in capfd.readouterr().err


def test_an_image_of_one_digest_under_two_names_stays_one(project: Project) -> None:
    """The former logical name goes; the image, which the new one has, does not."""
    project.open("image_0.tar.gz").close()
    project.last_used("image_0", 31)
    (project.directory / "renamed.tar.gz").write_bytes(
        (project.directory / "image_0.tar.gz").read_bytes()
    )
    with project.open("renamed.tar.gz") as image:
        assert image.digest == project.digests[0]
    assert project.store.names() == ["renamed"]
    assert project.objects() == {project.digests[0]}
    assert app_images._UNUSED_AGE < 31 * DAY
