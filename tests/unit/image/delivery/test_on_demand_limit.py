"""The disk that images take whose blocks are read on demand: what was not used for longest goes."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from boincvm.errors import PreferencesError
from boincvm.host.files import allocated_size
from boincvm.hypervisor.preferences import preferences_file
from boincvm.image.delivery import keys, on_demand
from boincvm.image.delivery.fetch import fetch_image
from boincvm.image.delivery.on_demand import OnDemandRoot, open_on_demand
from boincvm.image.delivery.publish import publish_images
from boincvm.image.delivery.trust import Trust
from boincvm.image.filenames import ROOT_PART
from boincvm.image.store import ImageStore
from support.image_server import ImageServer
from support.partial_images import build_partial, content

pytestmark = pytest.mark.usefixtures("own_home")
NAMES = ("a", "b", "c")
READ = 64 << 10
"""Bytes that a run reads of its disk, at most; more come with them."""
_AT = 0x50000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the key and the web pages of three images, made once."""
    directory = tmp_path_factory.mktemp("made")
    keys.make_key(directory / "key.pem")
    publisher = ImageStore(directory / "publisher")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOINCVM_HOME", str(directory / "home"))
        for version, name in enumerate(NAMES):
            build_partial(publisher, name, version)
        publish_images(NAMES, directory / "www", directory / "key.pem", publisher)
    return directory


@pytest.fixture
def key(made: Path) -> Path:
    return made / "key.pem"


@pytest.fixture
def www(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "www", tmp_path / "www"))


@pytest.fixture
def fetched(server: ImageServer, store: ImageStore, trust: Trust) -> ImageStore:
    """Return a store with the three images; all blocks of b and c are copied from others."""
    for name in NAMES:
        fetch_image(server.url, name, store, on_demand=True, trust=trust)
    for name in NAMES:
        empty(store, name)
    return store


def part(store: ImageStore, name: str) -> Path:
    return store.root / "objects" / store.digest_of(name) / ROOT_PART


def empty(store: ImageStore, name: str) -> None:
    os.truncate(part(store, name), 0)


def size(store: ImageStore, name: str) -> int:
    """Return the bytes on the disk."""
    return allocated_size(part(store, name).stat())


def run(store: ImageStore, name: str, *, during: str = "") -> None:
    """Read what a machine of the image might; `during` that, one of another image runs."""

    async def read(root: OnDemandRoot) -> bytes:
        async with asyncio.timeout(60):
            return await root.read(_AT, READ)

    with store.open(name, partly=True) as image, open_on_demand(store, image) as root:
        assert asyncio.run(root.guard(read(root)))
        if during:
            run(store, during)


def test_what_was_not_used_for_longest_goes_first(fetched, monkeypatch):
    for name in NAMES:
        run(fetched, name)
    before = {name: size(fetched, name) for name in NAMES}
    assert min(before.values()) >= READ
    run(fetched, "a")  # now b was not used for longest
    monkeypatch.setattr(on_demand, "MOST_ON_DISK", before["a"] + before["c"])
    run(fetched, "a")
    assert [size(fetched, name) for name in NAMES] == [before["a"], 0, before["c"]]


def test_an_image_that_was_emptied_is_read_again(fetched, server, monkeypatch):
    monkeypatch.setattr(on_demand, "MOST_ON_DISK", 1)
    for _ in range(2):
        server.asked.clear()
        run(fetched, "a")
        assert [name for name in server.names() if name.endswith(".blocks")]
        assert size(fetched, "a") == 0
    assert fetched.names() == [*NAMES]


def test_what_runs_stays(fetched, monkeypatch):
    monkeypatch.setattr(on_demand, "MOST_ON_DISK", 1)
    with fetched.open("a", partly=True) as image, open_on_demand(fetched, image) as root:
        expected = root._part.read(0, 4096)
        run(fetched, "b", during="c")
        assert size(fetched, "a") >= READ // 16
        assert root._part.read(0, 4096) == expected
        assert [size(fetched, name) for name in ("b", "c")] == [0, 0]
    assert size(fetched, "a") == 0


def test_nothing_goes_below_the_limit(fetched):
    run(fetched, "a")
    run(fetched, "b", during="c")
    assert min(size(fetched, name) for name in NAMES) >= READ
    assert fetched.limit_parts(sum(size(fetched, name) for name in NAMES)) == 0


def test_the_volunteers_preferences(fetched, monkeypatch):
    found = []
    monkeypatch.setattr(ImageStore, "limit_parts", lambda _store, most: found.append(most))
    preferences_file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    preferences_file().write_text('on_demand = "512M"\n')
    run(fetched, "a")
    assert found == [512 << 20] * 2
    preferences_file().write_text('on_demand = "1K"\n')
    with pytest.raises(PreferencesError, match=r"expected a size from 16\.0 MiB to 1\.0 TiB"):
        run(fetched, "a")


def test_a_whole_image_is_no_part(fetched, server, trust, monkeypatch):
    fetch_image(server.url, "a", fetched, trust=trust)
    run(fetched, "b")
    assert fetched.limit_parts(0) == 1
    with fetched.open("a") as image:
        assert image.root.stat().st_size > len(content()) // 2
