"""Files that others could have written are not used: owners, modes, and sudo."""

import json
import os
import tempfile
from pathlib import Path

import pytest

from boincvm import paths
from boincvm.cli.main import main
from boincvm.controller.serve.auth import token_in
from boincvm.controller.store import Store
from boincvm.errors import BoincvmError, HostError
from boincvm.exit_codes import ExitCode
from boincvm.host import own_files_posix
from boincvm.host.own_files import check_directory, make_directory, open_own
from boincvm.hypervisor.qemu import acceleration
from boincvm.image import verify
from boincvm.image.filenames import FILES
from boincvm.image.store import ImageStore
from boincvm.shim.machine_directory import MachineDirectory

NOBODY = 65534


@pytest.fixture
def location(tmp_path: Path) -> Path:
    """Return a directory that everybody can reach, like one in /tmp."""
    made = tmp_path / "place"
    made.mkdir(mode=0o755)
    shared = Path(tempfile.gettempdir())
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid() and shared in directory.parents:
            directory.chmod(0o755)
    return made


@pytest.fixture(autouse=True)
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat the user of the tests as another user than root, whose files everybody trusts."""
    if os.geteuid() == 0:
        monkeypatch.setattr(own_files_posix, "_ROOT", -1)


def write(path: Path, mode: int = 0o644) -> Path:
    path.write_text("{}")
    path.chmod(mode)
    return path


def given_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `path` belong to another user from now on."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: NOBODY)


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755])
def test_our_own(location: Path, mode: int) -> None:
    with open_own(write(location / "file", mode)) as file:
        assert file.read() == b"{}"
    location.chmod(mode | 0o700)
    assert check_directory(location) == location
    assert check_directory(location / "none" / "such") == location / "none" / "such"


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_what_others_can_write_to(location: Path, mode: int) -> None:
    path = write(location / "file", mode)
    with pytest.raises(
        HostError, match=r"file is not used: users other than .* can write"
    ) as caught:
        open_own(path)
    assert f"chmod go-w '{path}'" in caught.value.hint
    location.chmod(0o700 | mode)
    with pytest.raises(HostError, match="place is not used: users other than"):
        check_directory(location)


def test_what_others_cannot_reach(location: Path) -> None:
    """Use a umask of 002, which many systems have, and a home that is closed to others."""
    (location / "home").mkdir(mode=0o700)
    inner = location / "home" / "cache"
    inner.mkdir()
    inner.chmod(0o775)
    with open_own(write(inner / "file", 0o664)) as file:
        assert file.read() == b"{}"
    check_directory(inner)


def test_what_others_reach_by_another_way(location: Path) -> None:
    """A closed home does not protect the target of a link in it."""
    (location / "home").mkdir(mode=0o700)
    elsewhere = location / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o777)
    (location / "home" / "cache").symlink_to(elsewhere)
    with pytest.raises(HostError, match="cache is not used: users other than"):
        check_directory(location / "home" / "cache")
    write(elsewhere / "file", 0o666)
    with pytest.raises(HostError, match="file is not used: users other than"):
        open_own(location / "home" / "cache" / "file")


def test_what_belongs_to_others(location: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(location / "file")
    given_away(path, monkeypatch)
    with pytest.raises(HostError, match="file is not used: it belongs to ") as caught:
        open_own(path)
    assert "BOINCVM_HOME" in caught.value.hint
    given_away(location, monkeypatch)
    with pytest.raises(HostError, match="place is not used: it belongs to "):
        check_directory(location)


def test_links(location: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's cache may be on another disk, but nobody else may choose where."""
    (location / "other disk").mkdir(mode=0o700)
    link = location / "cache"
    link.symlink_to("other disk")
    check_directory(link)
    write(location / "file")
    (location / "to a file").symlink_to("file")
    with pytest.raises(OSError, match="symbolic"):
        open_own(location / "to a file")
    given_away(link, monkeypatch)
    with pytest.raises(HostError, match="cache is not used: it belongs to"):
        check_directory(link)


def test_sudo_is_told_of(location: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sudo` may leave HOME unchanged: root would trust what that user has written."""
    path = write(location / "file")
    given_away(path, monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(HostError, match=r"and this is root") as caught:
        open_own(path)
    assert "use sudo -H" in caught.value.hint


def test_directories_are_made_for_us_alone(location: Path) -> None:
    mask = os.umask(0)
    try:
        make_directory(location / "a" / "b")
        make_directory(location / "a" / "b")
    finally:
        os.umask(mask)
    assert [(location / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o700, 0o700]


# What is looked at.


@pytest.fixture
def home(location: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOINCVM_HOME", str(location / "home"))
    for name in ("data", "cache"):
        (location / "home" / name).mkdir(parents=True)
    return location / "home"


@pytest.mark.parametrize("name", ["", "data", "cache", "data/controller", "cache/runs"])
def test_directories_that_others_can_write_to(home: Path, name: str) -> None:
    directory = home / name
    directory.mkdir(exist_ok=True)
    directory.chmod(0o777)
    with pytest.raises(HostError, match="users other than"):
        (paths.controller_directory(), paths.runs_directory())
    assert main(["run", "--", "true"]) == ExitCode.HOST or name == "data/controller"
    assert main(["ls"]) == ExitCode.HOST or name in ("cache", "cache/runs")


def test_files_that_others_can_write_to(home: Path) -> None:
    controller = home / "data" / "controller"
    make_directory(controller)
    controller.chmod(0o755)
    (home / "data" / "images" / "names").mkdir(parents=True)
    digest = "0" * 64
    (home / "cache" / "verified").mkdir()
    stamp = write(home / "cache" / "verified" / f"{digest}.json", 0o666)
    image = home / "image"
    image.mkdir()
    for name in FILES:
        write(image / name)
    stamp.write_text(json.dumps(verify._identity(image)))
    uses = {
        stamp: lambda: verify.is_remembered(image, digest),
        home / "data" / "images" / "names" / "base": lambda: ImageStore().digest_of("base"),
        controller / "token": lambda: token_in(controller / "token"),
        controller / "store.sqlite": lambda: Store(controller / "store.sqlite"),
        controller / "state.json": lambda: MachineDirectory(controller).status(),
        controller / "machine.json": lambda: MachineDirectory(controller).definition(),
        controller / "bus.json": lambda: MachineDirectory(controller).bus(),
    }
    for path, use in uses.items():
        if path != stamp:
            write(path, 0o666)
        with pytest.raises(BoincvmError, match=f"{path.name} is not used: users other than"):
            use()
    stamp.chmod(0o644)
    assert verify.is_remembered(image, digest)


def test_a_careless_umask_spoils_nothing(home: Path) -> None:
    """boincvm can read its own files again."""
    image = home / "image"
    image.mkdir()
    for name in FILES:
        write(image / name)
    mask = os.umask(0)
    try:
        verify.remember(image, FakeManifest())  # type: ignore[arg-type]
        verdict = acceleration.Verdict("tcg", "so it is", 1.0)
        acceleration._store(home / "cache" / "acceleration.json", "key", verdict)
    finally:
        os.umask(mask)
    assert verify.is_remembered(image, FakeManifest.digest)
    stored = acceleration._load(home / "cache" / "acceleration.json", "key")
    assert stored is not None
    assert stored.accelerator == "tcg"


class FakeManifest:
    """A manifest, as far as it is needed."""

    digest = "0" * 64


def test_a_full_disk_leaves_no_stamp(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = home / "image"
    image.mkdir()
    for name in FILES:
        write(image / name)

    def full(path: Path, _text: str) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    verify.remember(image, FakeManifest())  # type: ignore[arg-type]
    assert os.listdir(home / "cache" / "verified") == []
