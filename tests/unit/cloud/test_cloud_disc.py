"""Discs: what ours holds, and what the guest reads of other programs' and of hostile ones."""

import lzma
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boincvm.image.cloud.disc import disc_of
from boincvm_cloud.disc import SECTOR, Disc, DiscError
from boincvm_cloud.seed import find_disc

DISCS = Path(__file__).parent / "discs"
META_DATA = b'{"instance-id": "i-1", "local-hostname": "one"}\n'
FILES = {"meta-data": META_DATA, "user-data": b"x" * 5000, "empty": b""}


@contextmanager
def opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY)
    try:
        yield file
    finally:
        os.close(file)


def test_a_disc_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "disc"
    path.write_bytes(disc_of("cidata", FILES))
    assert path.read_bytes() == disc_of("cidata", dict(reversed(FILES.items())))
    with opened(path) as file:
        disc = Disc(file)
        assert (disc.label, disc.names) == ("cidata", sorted(FILES))
        assert {name: disc.content(name, 5000) for name in FILES} == FILES
        assert disc.content("other", 1) is None
        with pytest.raises(DiscError, match="5000 bytes, more than 4999"):
            disc.content("user-data", 4999)
    with pytest.raises(ValueError, match="two names"):
        disc_of("cidata", {"user-data": b"", "user_data": b""})
    with pytest.raises(ValueError, match="too many"):
        disc_of("cidata", {f"{number:08}{'x' * 50}": b"" for number in range(30)})


@pytest.mark.parametrize("name", ["both", "rock", "xorriso", "xorriso-joliet"])
def test_a_disc_of_another_program(name: str, tmp_path: Path) -> None:
    """genisoimage and xorriso have written them, with Joliet's names, Rock Ridge's, or both."""
    path = tmp_path / "disc"
    path.write_bytes(lzma.decompress((DISCS / f"{name}.iso.xz").read_bytes()))
    with opened(path) as file:
        disc = Disc(file)
        assert (disc.label.lower(), disc.names) == ("cidata", ["meta-data", "user-data"])
        assert disc.content("meta-data", 1000) == META_DATA


def test_a_disc_with_short_names_alone(tmp_path: Path) -> None:
    path = tmp_path / "disc"
    path.write_bytes(lzma.decompress((DISCS / "plain.iso.xz").read_bytes()))
    with opened(path) as file:
        assert Disc(file).names == ["meta_dat", "user_dat"]


def test_a_truncated_disc(tmp_path: Path) -> None:
    path = tmp_path / "disc"
    whole = disc_of("cidata", FILES)
    path.write_bytes(whole[: -2 * SECTOR])
    with opened(path) as file, pytest.raises(DiscError, match="not on the disc as a whole"):
        Disc(file).content("user-data", 5000)
    for length in (0, 100, 16 * SECTOR, 17 * SECTOR + 5):
        path.write_bytes(whole[:length])
        with opened(path) as file, pytest.raises(DiscError, match="it is no disc"):
            Disc(file)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["both", "rock", "plain"]),
    changes=st.lists(
        st.tuples(st.integers(16 * SECTOR, 40 * SECTOR), st.integers(0, 255)), max_size=30
    ),
)
def test_an_altered_disc(tmp_path: Path, name: str, changes: list[tuple[int, int]]) -> None:
    """Whatever is in it, it is refused, or its files are read within their limits."""
    content = bytearray(lzma.decompress((DISCS / f"{name}.iso.xz").read_bytes()))
    for at, value in changes:
        content[at % len(content)] = value
    path = tmp_path / "disc"
    path.write_bytes(content)
    with opened(path) as file:
        try:
            disc = Disc(file)
            for known in disc.names:
                assert len(disc.content(known, 1000) or b"") <= 1000
        except DiscError:
            pass


def test_the_disk_with_the_label_is_found(tmp_path: Path) -> None:
    """Disks without it, with another one, and drives without a disc are passed over."""
    devices, blocks = tmp_path / "dev", tmp_path / "block"
    blocks.mkdir()
    devices.mkdir()
    assert find_disc(str(devices), str(tmp_path / "none")) is None
    for name, content in (("vda", b"a root disk"), ("vdb", disc_of("other", FILES))):
        (devices / name).write_bytes(content)
        (blocks / name).touch()
    (blocks / "sr0").touch()
    assert find_disc(str(devices), str(blocks)) is None
    (devices / "vdc").write_bytes(disc_of("CIDATA", FILES))
    (blocks / "vdc").touch()
    found = find_disc(str(devices), str(blocks))
    assert found is not None
    assert (found[0], found[1].names) == ("vdc", sorted(FILES))
