"""Tasks whose image comes as a packed image and patches, where these are not in order: no machine
starts, and the client is told which file is to blame."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from boincvm.boinc.testing import EndKind
from boincvm.image.delivery.patched_pack import pack_patch
from boincvm.image.pack import pack_image
from boincvm.image.store import ImageStore
from support.host_slot import HostSlot
from support.packed_images import state
from support.versions import build


@pytest_asyncio.fixture
async def slot(tmp_path: Path) -> AsyncIterator[HostSlot]:
    """A slot with a job whose image is app.tar.gz, with two patches."""
    publisher = ImageStore(tmp_path / "publisher")
    async with HostSlot(tmp_path, period=0.25) as slot:
        files: list[Path] = []
        for version in range(3):
            build(publisher, "app", version)
            path = slot.path / (f"app.{version}.patch" if version else "app.tar.gz")
            with publisher.open("app") as image:
                if version:
                    pack_patch(image, path, files, publisher)
                else:
                    pack_image(image, path)
            files.append(path)
        slot.machine_job("true", "<image>app.tar.gz</image>")
        yield slot


def spoil(slot: HostSlot, how: str) -> None:
    packed, first, second = (slot.path / f"app.{end}" for end in ("tar.gz", "1.patch", "2.patch"))
    match how:
        case "truncated patch":
            second.write_bytes(second.read_bytes()[:-100])
        case "altered patch":
            data = first.read_bytes()
            first.write_bytes(data[:-3000] + bytes(10) + data[-2990:])
        case "truncated pack":
            packed.write_bytes(packed.read_bytes()[:-100])
        case "swapped":
            content = first.read_bytes()
            second.replace(first)
            second.write_bytes(content)
        case "gap":
            first.unlink()
        case "too many":
            for number in range(3, 10):
                (slot.path / f"app.{number}.patch").write_bytes(b"")


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("truncated patch", "app.2.patch is damaged: it ends too early"),
        ("altered patch", "app.1.patch is damaged: "),
        ("truncated pack", "app.tar.gz is not a packed image, or is damaged"),
        ("swapped", "app.1.patch does not belong to app.tar.gz"),
    ],
)
async def test_a_file_that_is_not_in_order_postpones_the_task(
    how: str, text: str, slot: HostSlot
) -> None:
    spoil(slot, how)
    end = await slot.run()
    assert (end.kind, end.delay, end.notice) == (EndKind.TEMPORARY_EXIT, 3600, True), slot.stderr
    assert text in end.text
    assert "reset the project" in end.text
    assert str(slot.path) not in end.text
    assert state(ImageStore(slot.slot.project / "boincvm-images")) == []


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("gap", "app.2.patch is here, and app.1.patch is not, which it follows"),
        ("too many", "more than 8 patches follow app.tar.gz"),
    ],
)
async def test_an_app_version_that_is_wrong_fails_the_task(
    how: str, text: str, slot: HostSlot
) -> None:
    """No later try can help, and the former image must not run in the new one's place."""
    spoil(slot, how)
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FAILED, 206), slot.stderr
    assert text in end.text
