"""Images that exist by name alone, for machines that are created but never start."""

from pathlib import Path

import pytest

from boincvm.image.store import ImageStore

_DIGEST = "0" * 64


def name_image(name: str = "base") -> None:
    """Name an image in this user's store, which has no content for it."""
    names = ImageStore().root / "names"
    names.mkdir(parents=True, exist_ok=True)
    (names / name).write_text(_DIGEST)


@pytest.fixture(scope="session")
def named_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data directory whose store has the name `base`, and nothing else."""
    directory = tmp_path_factory.mktemp("named")
    with pytest.MonkeyPatch.context() as meanwhile:
        meanwhile.delenv("BOINCVM_HOME", raising=False)
        meanwhile.setenv("XDG_DATA_HOME", str(directory))
        name_image()
    return directory


@pytest.fixture(autouse=True)
def machines_can_be_created(named_image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an image `base` whether or not this user has built one."""
    monkeypatch.setenv("XDG_DATA_HOME", str(named_image))
