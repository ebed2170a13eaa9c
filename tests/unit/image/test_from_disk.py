"""Images of the disks of machines, by the real qemu-img; the disks are small."""

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from boincvm.bus.broker_address import BrokerAddress
from boincvm.controller.machines.machines import Machines
from boincvm.errors import HostDiskFullError, HostError, UsageError
from boincvm.image import from_disk, listing
from boincvm.image.from_disk import image_of_disk
from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT, Manifest, Package, Recipe
from boincvm.image.object_files import describe
from boincvm.image.store import ImageStore
from boincvm.shim.machine_directory import Status

pytestmark = pytest.mark.timeout(60)
SIZE = 4 << 20


def disk(path: Path, written: Mapping[int, int]) -> Path:
    """Make a disk, or a layer of one, with 64 KiB of these bytes at these offsets."""
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), str(SIZE))
    commands = [f"write -P {byte} {offset} 64k" for offset, byte in written.items()]
    run("qemu-io", "-f", "qcow2", *(word for text in commands for word in ("-c", text)), str(path))
    return path


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    """A store with the image `base`."""
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    made = tmp_path / "made"
    made.mkdir()
    for name in (KERNEL, INITRD):
        (made / name).write_text(name)
    disk(made / ROOT, {0: 0x11, 1 << 20: 0x12})
    files = tuple(describe(made / name) for name in (INITRD, KERNEL, ROOT))
    recipe = Recipe(1, "bookworm", (), "g")
    manifest = Manifest("amd64", recipe, "6", "1", "0", (), files, least_memory=64 << 20)
    (made / MANIFEST).write_bytes(manifest.encode())
    found = ImageStore()
    found.builds.mkdir(parents=True)
    found.publish("base", made, manifest)
    return found


def test_all_layers_of_the_disk(store: ImageStore, tmp_path: Path) -> None:
    layers = [
        disk(tmp_path / "a,b.qcow2", {1 << 20: 0x22, 2 << 20: 0x23}),
        disk(tmp_path / "top.qcow2", {2 << 20: 0x33}),
    ]
    with store.open("base") as image:
        made = image_of_disk(store, "new", image, layers, "web.1")
        recipe = image.manifest.recipe
    with store.open("new") as image:
        assert image.manifest == made
        assert "\ndisk        that of the machine web.1\n" in listing.describe(image)
        assert (made.machine, made.recipe, made.least_memory) == ("web.1", recipe, 64 << 20)
        assert (image.directory / KERNEL).read_text() == KERNEL
        raw = tmp_path / "raw"
        run("qemu-img", "convert", "-O", "raw", str(image.root), str(raw))
        data = raw.read_bytes()
    assert len(data) == SIZE
    assert [data[offset] for offset in (0, 1 << 20, 2 << 20, 3 << 20)] == [0x11, 0x22, 0x33, 0]
    assert [path for path in store.builds.iterdir() if path.is_dir()] == []


def test_relative_names_with_a_colon(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be protocols for qemu-img."""
    monkeypatch.chdir(tmp_path)
    store.builds.parent.rename("nbd:store")
    disk(tmp_path / "nbd:layer", {1 << 20: 0x22})
    moved = ImageStore(Path("nbd:store"))
    with moved.open("base") as image:
        made = image_of_disk(moved, "new", image, [Path("nbd:layer")], "web.1")
    with moved.open("new") as image:
        assert image.manifest == made


def test_a_layer_that_names_a_file_of_the_host(store: ImageStore, tmp_path: Path) -> None:
    """Its first bytes are not the guest's, but what cannot be trusted is not opened."""
    secret = disk(tmp_path / "secret", {0: 0x77})
    hostile = tmp_path / "hostile"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(secret), "-F", "qcow2", str(hostile))
    with store.open("base") as image:
        with pytest.raises(HostError, match=r"the disk of web\.1 cannot be used"):
            image_of_disk(store, "new", image, [hostile], "web.1")
        with pytest.raises(HostError, match=r"no image of web\.1 can be made"):
            image_of_disk(store, "new", image, [tmp_path / "gone"], "web.1")
        with pytest.raises(UsageError, match="an image's name"):
            image_of_disk(store, "../new", image, [], "web.1")
    assert store.names() == ["base"]


def test_texts_of_an_image_are_shown_in_their_lines(store: ImageStore) -> None:
    """A packed image may be from anybody."""
    evil = "a\x1b]0;title\x07\ndigest      0"
    with store.open("base") as image:
        found = image.manifest
        recipe = replace(found.recipe, packages=(evil,), own_files=(f"/{evil}:1",))
        packages = (Package(evil, evil, "amd64", False),)
        image._manifest = replace(
            found, recipe=recipe, packages=packages, python_packages=(evil,), machine=evil
        )
        shown = listing.describe(image)
    assert "\x1b" not in shown
    assert len([line for line in shown.splitlines() if line.startswith("digest")]) == 1


def test_an_image_of_a_disk_has_room(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = disk(tmp_path / "layer", {1 << 20: 0x22})
    asked: list[int] = []

    def check_space(_directory: Path, size: int, _what: str) -> None:
        asked.append(size)
        raise HostDiskFullError("full")

    monkeypatch.setattr(from_disk, "check_space", check_space)
    with store.open("base") as image:
        with pytest.raises(HostDiskFullError):
            image_of_disk(store, "new", image, [layer], "web.1")
        least = 3 * (64 << 10)  # what was written to both disks
        assert least < asked[0] < 4 << 20
    assert store.names() == ["base"]


CONVERT = """
import sys
from pathlib import Path
from boincvm.image.from_disk import image_of_disk
from boincvm.image.store import ImageStore
store = ImageStore()
with store.open("base") as image:
    image_of_disk(store, "new", image, [Path(sys.argv[1])], "web.1")
"""


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_no_tool_goes_on_without_its_controller(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that waits stands for a qemu-img that is at work for long."""
    layer = disk(tmp_path / "layer", {1 << 20: 0x22})
    programs = tmp_path / "bin"
    programs.mkdir()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (programs / "qemu-img").write_text(f"#!/bin/sh\necho $$ > '{pipe}'\nexec sleep 1000\n")
    (programs / "qemu-img").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    with (
        subprocess.Popen([sys.executable, "-c", CONVERT, str(layer)]) as parent,
        ExitStack() as stack,
    ):
        stack.callback(parent.kill)
        tool = os.pidfd_open(int(pipe.read_text()))
        stack.callback(os.close, tool)
        parent.kill()
        poll = select.poll()
        poll.register(tool, select.POLLIN)
        if not poll.poll(20_000):
            signal.pidfd_send_signal(tool, signal.SIGKILL)
            pytest.fail("the tool goes on")
    assert store.names() == ["base"]


async def test_an_image_of_a_controllers_machine(store: ImageStore, tmp_path: Path) -> None:
    """The machine never ran: its disk and its record are as `boincvm stop` leaves them."""
    machines = Machines(
        tmp_path / "machines", lambda _: BrokerAddress("a", "x", path="/nowhere"), lambda _: None
    )
    machines.load()
    machine = machines.create(
        "web.1",
        image="base",
        memory="256M",
        cpus=1,
        disk=None,
        network=False,
        display=False,
        labels={},
    )
    before = store.digest_of("base")
    disk(machine.directory.disk / "disk-1.qcow2", {2 << 20: 0x23})
    ended = Status(image=before, layers=("disk-1.qcow2",), was_shut_down=True)
    machine.set_status(ended)
    digest = await machines.make_image(machine, "web")
    assert store.names() == ["base", "web"]
    assert (store.digest_of("base"), store.digest_of("web")) == (before, digest)
    with store.open("web") as image, store.open("base") as base:
        raw = tmp_path / "raw"
        run("qemu-img", "convert", "-O", "raw", str(image.root), str(raw))
        data = raw.read_bytes()
        assert base.root.exists()
    assert [data[offset] for offset in (0, 1 << 20, 2 << 20)] == [0x11, 0x12, 0x23]
    assert machine.directory.status().layers == ("disk-1.qcow2",)
    assert not machine.directory.is_locked()
    machine.set_status(ended._replace(image="0" * 64))
    with pytest.raises(HostError, match=r"the image base has changed since the disk of web\.1"):
        await machines.make_image(machine, "other")
