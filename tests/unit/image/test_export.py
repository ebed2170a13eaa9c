"""Images as disks of other hypervisors, by the real qemu-img; the disks are small."""

import hashlib
import os
import struct
import subprocess
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from boincvm.cli import image_disk
from boincvm.cli.main import main
from boincvm.errors import HostDiskFullError, HypervisorMissingError, UsageError
from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.architecture import Architecture
from boincvm.hypervisor.boot_loader import machine_code as loader_code
from boincvm.image import bootable_disk, export
from boincvm.image.bootable_disk import SECTOR, read_index, write_bootable_disk
from boincvm.image.disk_formats import FORMATS, format_of
from boincvm.image.export import export_image
from boincvm.image.import_disk import import_disk
from boincvm.image.interruption import TerminatedError
from boincvm.image.store import Image, ImageStore
from support.elf_kernel import an_elf
from support.small_images import INITRD_CONTENT, SIZE, WRITTEN, publish_small

pytestmark = pytest.mark.timeout(120)
DISKS = ["raw", "qcow2", "vdi", "vmdk", "vhdx"]


@pytest.fixture
def image(store: ImageStore) -> Iterator[Image]:
    publish_small(store)
    with store.open("small") as opened:
        yield opened


def raw_of(path: Path, disk_format: str) -> Path:
    raw = path.with_suffix(".content")
    convert = ["qemu-img", "convert", "-f", disk_format, "-O", "raw", path, raw]
    subprocess.run(convert, check=True, capture_output=True, timeout=60)
    return raw


def check_disk(raw: Path, image: Image) -> None:
    """Check that the raw disk has all of the image."""
    content = raw.read_bytes()
    with raw.open("rb") as file:
        index = read_index(file.fileno())
    assert content[SECTOR : index.root] == (
        bytes(WRITTEN - SECTOR) + b"\x12" * 65536 + bytes(SIZE - WRITTEN - 65536)
    )
    for at, length, expected in (
        (index.manifest_at, index.manifest, image.manifest.encode()),
        (index.kernel_at, index.kernel, image.kernel.read_bytes()),
        (index.initrd_at, index.initrd, INITRD_CONTENT),
    ):
        assert content[at : at + length] == expected
    assert content[510:512] == b"\x55\xaa"


def test_the_boot_sector_is_what_it_says(tmp_path: Path) -> None:
    """An assembler makes the same bytes from the text beside them."""
    source = "".join(line[24:].strip() + "\n" for line in bootable_disk.CODE.splitlines())
    (tmp_path / "sector.s").write_text(source)
    for command in (
        ["as", "--32", "-o", "sector.o", "sector.s"],
        ["objcopy", "-O", "binary", "-j", ".text", "sector.o", "sector"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "sector").read_bytes() == bootable_disk.machine_code()


def test_the_loader_for_other_sectors() -> None:
    """Only the numbers of sectors and words differ, of 32 KiB in each case."""
    disc, disk = loader_code(), loader_code(512)
    differ = [(a, b) for a, b in zip(disc, disk, strict=True) if a != b]
    assert differ == [(16, 64), (10, 8)]


@pytest.mark.parametrize("disk_format", DISKS)
def test_a_disk_of_each_format(image: Image, tmp_path: Path, disk_format: str) -> None:
    first, second = tmp_path / f"first.{disk_format}", tmp_path / f"second.{disk_format}"
    export_image(image, first, format_of(first))
    check_disk(raw_of(first, disk_format), image)
    assert first.stat().st_blocks * 512 < 2 * SIZE
    export_image(image, second, disk_format)
    # A VHDX file has random identifiers under checksums.
    assert (first.read_bytes() == second.read_bytes()) is (disk_format != "vhdx")


@pytest.mark.parametrize("begin", [176, 512])
def test_where_the_loader_finds_the_kernel(store: ImageStore, tmp_path: Path, begin: int) -> None:
    """It reads whole sectors: of the kernel's file if nothing else is in them, else of a copy."""
    publish_small(store, kernel=an_elf(begin=begin))
    with store.open("small") as image, (tmp_path / "disk").open("w+b") as file:
        size = write_bootable_disk(image, file.fileno(), "true")
        index = read_index(file.fileno())
        content = (tmp_path / "disk").read_bytes()
    assert len(content) == size
    loader = content[SIZE:]
    first, count, address, initrd, sectors, _ = struct.unpack_from("<6I", loader, 0x400)
    assert content[first * SECTOR :].startswith(b"the kernel's code\0")
    assert (count, address) == (1, 0x100_0000)
    assert (first == (index.kernel_at + begin) // SECTOR) is (begin == 512)
    assert (initrd, sectors) == (index.initrd_at // SECTOR, 2)
    assert b'panic=0 console=ttyS0 boincvm.shell="(true); poweroff -f"\0' in loader
    # The boot sector loads the loader, with which the one partition begins.
    assert struct.unpack_from("<HHHQ", content, 0x32) == (16, 0x7C00, 0, SIZE // SECTOR)
    assert struct.unpack_from("<II", content, 454) == (SIZE // SECTOR, (size - SIZE) // SECTOR)


def test_an_appliance(image: Image, tmp_path: Path) -> None:
    path = tmp_path / "small.ova"
    export_image(image, path, "ova")
    content = path.read_bytes()
    with tarfile.open(path) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "in", filter="data")
    assert names == ["machine.ovf", "machine.mf", "disk.vmdk", "boot.iso"]
    digests = {}
    for line in (tmp_path / "in/machine.mf").read_text().splitlines():
        name, digest = line.removeprefix("SHA256(").split(")= ")
        digests[name] = digest
    assert digests == {
        name: hashlib.sha256((tmp_path / "in" / name).read_bytes()).hexdigest()
        for name in ("machine.ovf", "disk.vmdk", "boot.iso")
    }
    raw = raw_of(tmp_path / "in/disk.vmdk", "vmdk")
    check_disk(raw, image)
    envelope = ET.parse(tmp_path / "in/machine.ovf").getroot()
    space = "{http://schemas.dmtf.org/ovf/envelope/1}"
    capacities = {
        disk.get(f"{space}diskId"): int(disk.get(f"{space}capacity") or 0)
        for disk in envelope.iter(f"{space}Disk")
    }
    assert capacities["disk"] == raw.stat().st_size
    sizes = {file.get(f"{space}href"): file.get(f"{space}size") for file in envelope.iter()}
    assert sizes["disk.vmdk"] == str((tmp_path / "in/disk.vmdk").stat().st_size)
    export_image(image, path, "ova", force=True)
    assert path.read_bytes() == content


@pytest.mark.parametrize("disk_format", [*DISKS, "ova"])
def test_a_relative_name_with_a_colon(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk_format: str
) -> None:
    """It would be a protocol for qemu-img."""
    monkeypatch.chdir(tmp_path)
    path = Path(f"nbd:disk.{disk_format}")
    export_image(image, path, disk_format)
    store = ImageStore(Path("file:store"))
    assert import_disk(path, disk_format, "again", store).digest == image.digest


def test_what_is_refused(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "disk.raw"
    path.touch()
    with pytest.raises(UsageError, match="already exists"):
        export_image(image, path, "raw")
    export_image(image, path, "raw", force=True)
    for command in ('echo "x"', "echo ä", "a\nb", " ", "x" * 1001):
        with pytest.raises(UsageError, match="the machine's command"):
            export_image(image, tmp_path / "new", "raw", command=command)
    with pytest.raises(UsageError, match=r"disk\.xyz tells no format"):
        format_of(Path("disk.xyz"))
    monkeypatch.setattr(Image, "architecture", Architecture.AARCH64)
    with pytest.raises(UsageError, match="only disks for x86_64"):
        export_image(image, tmp_path / "new", "raw")
    assert not (tmp_path / "new").exists()


def test_a_disk_for_clouds(image: Image, store: ImageStore, tmp_path: Path) -> None:
    """What it has in addition lies before the initrd; the image is the same."""
    path = tmp_path / "disk.qcow2"
    export_image(image, path, "qcow2", command=None)
    raw = raw_of(path, "qcow2")
    check_disk(raw, image)
    content = raw.read_bytes()
    assert b'console=ttyS0 rdinit=/cloud boincvm.shell="exec /dev/boincvm/start"\0' in content
    with raw.open("rb") as file:
        index = read_index(file.fileno())
    first, sectors, _ = struct.unpack_from("<3I", content[SIZE:], 0x400 + 12)
    assert content[first * SECTOR :].startswith(b"070701")
    assert first + sectors == -(-(index.initrd_at + index.initrd) // SECTOR)
    assert import_disk(path, "qcow2", "again", store).digest == image.digest
    with pytest.raises(UsageError, match="no disk for a seed"):
        export_image(image, tmp_path / "new.ova", "ova", command=None)


def test_without_qemu_img(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HypervisorMissingError, match="qemu-img") as caught:
        export_image(image, tmp_path / "disk.vdi", "vdi")
    assert "apt-get install qemu-utils" in caught.value.hint
    export_image(image, tmp_path / "disk.raw", "raw")


def test_room_is_asked_for_first(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_space(_directory: Path, size: int, _what: str) -> None:
        assert size > 2 * image.manifest.size
        raise HostDiskFullError("full")

    monkeypatch.setattr(export, "check_space", check_space)
    with pytest.raises(HostDiskFullError):
        export_image(image, tmp_path / "disk.vdi", "vdi")
    assert not (tmp_path / "disk.vdi").exists()


def test_a_disk_that_gets_full(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script has qemu-img's words for it."""
    script = tmp_path / "bin/qemu-img"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho 'qemu-img: error: No space left on device' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(HostDiskFullError, match="became full"):
        export_image(image, tmp_path / "disk.vdi", "vdi")
    assert not (tmp_path / "disk.vdi").exists()


@pytest.mark.parametrize("disk_format", ["qcow2", "ova"])
def test_an_interrupted_export_leaves_nothing(
    image: Image, store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    disk_format: str,
) -> None:  # fmt: skip
    (tmp_path / "out").mkdir()
    path = tmp_path / "out/disk"
    path.write_text("the former one")

    def interrupted(_raw: Path, target: Path, *_options: str) -> None:
        target.write_text("half")
        raise TerminatedError

    monkeypatch.setattr(export, "convert_from_raw", interrupted)
    with pytest.raises(TerminatedError):
        export_image(image, path, disk_format, force=True)
    assert path.read_text() == "the former one"
    assert os.listdir(path.parent) == ["disk"]
    assert [entry for entry in store.builds.iterdir() if entry.is_dir()] == []


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    publish_small(ImageStore())
    path = tmp_path / "disk.img"
    assert main(["image", "export", "--command", "ls /", "small", str(path)]) == 0
    assert f"image small has been exported: {path} (raw)" in capsys.readouterr().out
    assert b'boincvm.shell="(ls /); poweroff -f"' in path.read_bytes()
    assert main(["image", "export", "--cloud", "--force", "small", str(path)]) == 0
    assert b"rdinit=/cloud" in path.read_bytes()
    both = ["--cloud", "--command", "ls"]
    assert main(["image", "export", *both, "small", str(path)]) == ExitCode.USAGE
    assert image_disk.FORMATS == FORMATS
    assert main(["image", "export", "small", str(tmp_path / "disk.xyz")]) == ExitCode.USAGE
    assert "--format" in capsys.readouterr().err
