"""`boincvm doctor --clean` removes what killed processes have left, and nothing else."""

import json
import os
from pathlib import Path

import pytest

from boincvm.cli import checks, leftovers
from boincvm.cli.main import main
from boincvm.errors import HostError
from boincvm.host.held_directories import make_held
from boincvm.image.build_directory import build_directory
from boincvm.image.store import ImageStore
from boincvm.machine.admission import Admission
from boincvm.paths import runs_directory
from boincvm.runner.run_directory import run_directory


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path))
    monkeypatch.setattr(
        checks, "groups", lambda: checks.Groups((), (), (("python", checks.python),))
    )
    return tmp_path


def test_there_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert leftovers.remove_leftovers() == []
    main(["doctor", "--clean"])
    assert capsys.readouterr().out.startswith("killed processes have left nothing behind\n")


def test_the_dead_leave_nothing_and_the_living_lose_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seat = Admission(1)
    with run_directory() as mine, build_directory(ImageStore().builds) as built:
        (mine / "disk").touch()
        killed, held = make_held(ImageStore().builds)
        (killed / "root").mkdir()
        os.close(held)
        dead = runs_directory() / "dead"
        dead.mkdir()
        (dead / "disk").touch()
        (runs_directory().parent / "machines/7-dead").touch()
        golden = ImageStore().golden
        (golden / ".new-dead").mkdir(parents=True)
        (golden / "good").mkdir()
        assert leftovers.remove_leftovers() == [
            "removed directories of runs: 1",
            "removed records of running machines: 1",
            "removed unfinished images: 1",
            "removed unfinished golden snapshots: 1",
        ]
        assert not dead.exists()
        assert not killed.exists()
        assert built.exists()
        assert (mine / "disk").exists()
        assert [path.name for path in golden.iterdir() if path.is_dir()] == ["good"]
        dead.mkdir()
        main(["doctor", "--clean", "--json"])
        assert json.loads(capsys.readouterr().out)["removed"] == ["removed directories of runs: 1"]
    seat.end()


def test_what_a_driver_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        def remove_orphans(self) -> int:
            return 3

    class Broken:
        def remove_orphans(self) -> int:
            raise ZeroDivisionError("odd")

    class Refusing:
        def remove_orphans(self) -> int:
            raise HostError("it is not ours")

    packages = {"one": Package(), "two": Broken(), "three": Refusing()}
    monkeypatch.setattr(leftovers, "driver_names", lambda: list(packages))
    monkeypatch.setattr(leftovers, "find_driver", packages.__getitem__)
    assert leftovers.remove_leftovers() == [
        "removed machines of the driver one: 3",
        "looking for machines of the driver two failed: ZeroDivisionError: odd",
        "looking for machines of the driver three failed: it is not ours",
    ]
