"""A new version of an image reaches tasks of a client as a patch, not as the whole once more."""

from pathlib import Path

import pytest

from boincvm.boinc.testing import EndKind
from boincvm.image.delivery.patched_pack import pack_patch
from boincvm.image.pack import pack_image
from boincvm.image.store import ImageStore
from support.changed_image import publish_changed
from support.slot import Slot

pytestmark = [pytest.mark.timeout(280), pytest.mark.usefixtures("base_image")]
PACK, PATCH = "app_image_1.0.tar.gz", "app_image_1.1.patch"
"""The files of the app versions, by their physical names."""
LOGICAL = {PACK: "app_image.tar.gz", PATCH: "app_image.1.patch"}
OF_CLIENT = ("init_data.xml", "boinc_mmap_file")


async def run_task(slot: Slot, *app_files: str) -> str:
    """Run a task of an app version with these files in the empty slot; return what it prints."""
    for path in slot.path.iterdir():
        if path.name not in OF_CLIENT:
            path.unlink()
    slot.slot.app_files = [*app_files]
    slot.slot.write_init_data()
    for name in app_files:
        slot.slot.link(LOGICAL[name], name)
    slot.machine_job("cat /version || echo none", "<image>app_image.tar.gz</image>")
    end = await slot.run(XDG_DATA_HOME=str(slot.path / "no images"))
    assert end.kind is EndKind.FINISHED, slot.stderr
    return slot.text("out")


async def test_a_new_version_of_the_image_comes_as_a_patch(tmp_path: Path) -> None:
    """The first version runs a task, then the next; that is what the admin has packed.

    Of the packed image only its beginning is left then: the new version is made of the one that the
    first task has unpacked, which goes.
    """
    publisher = ImageStore(tmp_path / "publisher")
    async with Slot(tmp_path) as slot:
        packed, patch = slot.slot.project / PACK, slot.slot.project / PATCH
        with ImageStore().open("base") as base:
            first = base.digest
            pack_image(base, packed)
            second = publish_changed(base, publisher, "app", "version", "version 1.1\n")
        with publisher.open("app") as image:
            pack_patch(image, patch, [packed], publisher)
        print(f"packed {packed.stat().st_size} bytes, the patch {patch.stat().st_size}")
        assert patch.stat().st_size < packed.stat().st_size / 100

        objects = slot.slot.project / "boincvm-images/objects"
        assert await run_task(slot, PACK) == "none\n"
        assert [path.name for path in objects.iterdir()] == [first]
        with packed.open("r+b") as stream:
            stream.truncate(1 << 16)
        assert await run_task(slot, PACK, PATCH) == "version 1.1\n"
        assert [path.name for path in objects.iterdir()] == [second]
        assert f"the image {second[:12]} is app_image.tar.gz with 1 patch" in slot.stderr
