"""An image is shipped: volunteers fetch it, run a job, update it, and run the job again."""

import shutil
from pathlib import Path

import pytest

from boincvm.image.delivery import keys
from boincvm.image.delivery.fetch import update_image
from boincvm.image.delivery.index import torrent_name
from boincvm.image.delivery.publish import publish_images
from boincvm.image.delivery.torrent_file import Offer
from boincvm.image.store import ImageStore
from support.app_image import AppImages, printed
from support.image_server import serving
from support.swarm import HERE, PIECE, sharing, tracking, with_pieces
from support.volunteer import Volunteer

pytestmark = pytest.mark.timeout(500)
PROGRAM = "/opt/app/program"


@pytest.mark.usefixtures("uml_kernel")
def test_volunteers_update_an_image_and_run_it(base_image: Path, tmp_path: Path) -> None:
    """Versions 1, 2 and 5: by the difference, from the web server and from peers, and by blocks.

    What the machine of the last run came from is deleted while it runs.
    """
    key, www = tmp_path / "key.pem", tmp_path / "www"
    public = keys.make_key(key)
    publisher, volunteer = ImageStore(tmp_path / "publisher"), Volunteer(tmp_path / "volunteer")
    images = AppImages(base_image, tmp_path / "images")
    www.mkdir()
    with serving(www) as server, tracking() as tracker:

        def publish(version: int, keep: int = 3) -> str:
            digest = images.build(publisher, version)
            offer = Offer(server.url, (tracker.url,))
            publish_images(["app"], www, key, publisher, keep=keep, offer=offer)
            return digest

        first = publish(1)
        fetched = volunteer.image("fetch", server.url, "app", "--key", public, "--peers", "no")
        assert (fetched["digest"], fetched["way"]) == (first, "whole")
        assert volunteer.run("--image", "app", "--", "sh", PROGRAM) == printed(1)
        other = ImageStore(tmp_path / "other")
        shutil.copytree(volunteer.store.root, other.root)

        second = publish(2)
        updated = volunteer.image("update", "app", "--peers", "no")
        assert (updated["digest"], updated["way"]) == (second, "patch")

        # Two peers have half of the patch each; the other volunteer is the third.
        (patch,) = www.glob("patches/*.patch")
        content, torrent = patch.read_bytes(), Path(torrent_name(str(patch)))
        count = -(-len(content) // PIECE)
        halves = [with_pieces(content, range(half, count, 2)) for half in (0, 1)]
        server.asked.clear()
        with (
            sharing(tracker, torrent, halves[0], tmp_path / "a"),
            sharing(tracker, torrent, halves[1], tmp_path / "b"),
        ):
            shared = update_image("app", other, sharing=HERE)
        assert (shared.digest, shared.way) == (second, "patch")
        assert shared.from_peers >= len(content)
        assert not any(name.endswith(".patch") for name in server.names())

        # No patch leads from what is not kept.
        fifth = publish(5, keep=1)
        distant = volunteer.image("update", "app", "--peers", "no")
        assert (distant["digest"], distant["way"]) == (fifth, "blocks")
    whole = int(str(distant["whole"]))
    sizes = [int(str(one["downloaded"])) for one in (fetched, updated, distant)]
    print(f"downloaded {sizes} bytes, {shared.downloaded} with peers; the last whole: {whole}")
    assert sizes[0] > whole / 2
    assert sizes[1] < whole / 30
    assert sizes[2] < whole / 8

    assert volunteer.run_without_files("--image", "app", "--", "sh", PROGRAM) == printed(5)
