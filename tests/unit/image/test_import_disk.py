"""Disk files become images, and nothing else of this host does, by the real qemu-img."""

import io
import os
import struct
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boincvm.cli.main import main
from boincvm.errors import BoincvmError, HostDiskFullError, ImageDamagedError, UsageError
from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.qcow2 import DiskRefusedError
from boincvm.image import import_disk, listing
from boincvm.image.bootable_disk import NotBootableError, read_index
from boincvm.image.disk_formats import make_reproducible, run_qemu_img
from boincvm.image.disk_headers import MOST_SIZE, check_disk_file
from boincvm.image.export import export_image
from boincvm.image.interruption import TerminatedError
from boincvm.image.store import ImageStore
from support.small_images import SIZE, WRITTEN, publish_small

pytestmark = pytest.mark.timeout(120)
DISKS = ["raw", "qcow2", "vdi", "vmdk", "vhdx"]
SECRET = b"nobody else may read this" + bytes(487)


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files disk.FORMAT."""
    directory = tmp_path_factory.mktemp("exported")
    store = ImageStore(directory / "store")
    publish_small(store)
    with store.open("small") as image:
        for disk_format in (*DISKS, "ova"):
            export_image(image, directory / f"disk.{disk_format}", disk_format)
    return directory


@pytest.fixture
def at_most(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes for which room was asked."""
    asked: list[int] = []

    def check_space(_directory: Path, size: int, _what: str) -> None:
        asked.append(size)
        if size > 1 << 30:
            raise HostDiskFullError("full")

    monkeypatch.setattr(import_disk, "check_space", check_space)
    return asked


def refuse(path: Path, disk_format: str, store: ImageStore, why: str) -> None:
    """Check that the file is refused with a line that says why, and that nothing is left of it."""
    with pytest.raises(ImageDamagedError, match=why) as caught:
        import_disk.import_disk(path, disk_format, "new", store)
    assert "\n" not in caught.value.message
    nothing_left(store)


def nothing_left(store: ImageStore) -> None:
    assert store.names() == []
    assert [entry for entry in store.builds.iterdir() if entry.is_dir()] == []


@pytest.mark.parametrize("disk_format", [*DISKS, "ova"])
def test_an_export_comes_back_as_the_same_image(
    exported: Path, store: ImageStore, disk_format: str
) -> None:
    path = exported / f"disk.{disk_format}"
    imported = import_disk.import_disk(path, disk_format, "new", store)
    original = ImageStore(exported / "store")
    assert imported.digest == original.digest_of("small")
    with store.open("new") as image:
        assert image.manifest == imported
    with pytest.raises(UsageError, match="there is an image new already"):
        import_disk.import_disk(path, disk_format, "new", store)
    import_disk.import_disk(path, disk_format, "new", store, force=True)


def test_what_a_machine_has_written_is_in_the_image(
    exported: Path, store: ImageStore, tmp_path: Path
) -> None:
    path = tmp_path / "used.vdi"
    path.write_bytes((exported / "disk.vdi").read_bytes())
    run("qemu-io", "-f", "vdi", "-c", f"write -P 0x77 {2 * WRITTEN} 64k", path)
    imported = import_disk.import_disk(path, "vdi", "new", store)
    assert imported.machine
    with store.open("new") as image:
        assert "\ndisk        that of the machine that was exported\n" in listing.describe(image)
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image.root, tmp_path / "raw")
    content = (tmp_path / "raw").read_bytes()
    assert len(content) == SIZE
    assert [content[at] for at in (0, 510, WRITTEN, 2 * WRITTEN)] == [0, 0, 0x12, 0x77]


def test_the_disk_of_another_system(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes((b"GRUB".ljust(510, b"\0") + b"\x55\xaa") * 2048)
    refuse(tmp_path / "disk.img", "raw", store, "not a disk that boincvm has exported")
    run("qemu-img", "create", "-q", "-f", "vhdx", tmp_path / "disk", "8M")
    refuse(tmp_path / "disk", "vhdx", store, "not a disk that boincvm has exported")


def test_a_file_is_only_what_it_is_said_to_be(exported: Path, store: ImageStore) -> None:
    """No format is ever guessed from the content."""
    for actual in DISKS:
        for claimed in (*DISKS, "ova"):
            if claimed != actual and claimed != "raw":
                refuse(exported / f"disk.{actual}", claimed, store, "is refused: ")
        if actual != "raw":
            refuse(exported / f"disk.{actual}", "raw", store, "no boot sector of boincvm|invalid")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(SECRET * 8192)
    return path


@pytest.mark.parametrize(
    ("disk_format", "options", "why"),
    [
        ("qcow2", ("-b", "SECRET", "-F", "raw"), "names another file as its backing file"),
        ("qcow2", ("-o", "data_file=OTHER,data_file_raw=on"), "names another file as its data"),
        ("qcow2", ("-o", "compat=0.10"), "version 2"),
        ("vmdk", ("-b", "PARENT", "-F", "vmdk"), "lies over another disk"),
        ("vmdk", ("-o", "subformat=monolithicFlat"), "a description names other files"),
        ("vmdk", ("-o", "subformat=twoGbMaxExtentSparse"), "a description names other files"),
    ],
)
def test_what_leads_to_other_files(
    store: ImageStore, tmp_path: Path, secret: Path, disk_format: str, options: tuple[str, ...],
    why: str,
) -> None:  # fmt: skip
    parent = tmp_path / "parent.vmdk"
    run("qemu-img", "create", "-q", "-f", "vmdk", parent, str(4 << 20))
    given_options = [
        option.replace("SECRET", str(secret))
        .replace("PARENT", str(parent))
        .replace("OTHER", str(tmp_path / "other"))
        for option in options
    ]
    path = tmp_path / "hostile"
    run("qemu-img", "create", "-q", "-f", disk_format, *given_options, path, str(4 << 20))
    refuse(path, disk_format, store, why)


def described(change: bytes) -> Callable[[bytearray], None]:
    """Put other text in place of the extent in a VMDK file's description; @ is its size."""

    def apply(content: bytearray) -> None:
        text = bytes(content[512:10752]).rstrip(b"\0")
        start = text.index(b"RW ")
        end = text.index(b"\n", start)
        sectors = text[start:end].split()[1]
        text = text[:start] + change.replace(b"@", sectors) + text[end:]
        content[512:10752] = text.ljust(10240, b"\0")

    return apply


def put(at: int, data: bytes) -> Callable[[bytearray], None]:
    def apply(content: bytearray) -> None:
        content[at : at + len(data)] = data

    return apply


def flip_parent_flag(content: bytearray) -> None:
    at = metadata_item(content, "37 67 a1 ca 36 fa 43 4d b3 b6 33 f0 aa 44 e7 6b")
    content[at + 4] |= 2


def petabyte(content: bytearray) -> None:
    at = metadata_item(content, "24 42 a5 2f 1b cd 76 48 b2 11 5d be d8 3b f4 b8")
    struct.pack_into("<Q", content, at, 1 << 50)


def metadata_item(content: bytearray, name: str) -> int:
    """Return where an item of a VHDX file's metadata is."""
    table = content.index(b"metadata")
    (at,) = struct.unpack_from("<I", content, content.index(bytes.fromhex(name), table) + 16)
    return table + int(at)


@pytest.mark.parametrize(
    ("disk_format", "change", "why"),
    [
        ("vmdk", described(b'RW @ SPARSE "/etc/passwd"'), "names another file"),
        ("vmdk", described(b'RW @ SPARSE "../other.vmdk"'), "names another file"),
        ("vmdk", described(b'RW @ FLAT "secret" 0'), "names another file"),
        ("vmdk", described(b'RW 8 SPARSE "disk.vmdk"'), "names another file"),
        ("vmdk", described(b'RW @ SPARSE "a"\nRW 8 FLAT "secret" 0'), "it has 2 extents"),
        ("vmdk", described(b""), "it has 0 extents"),
        ("vmdk", described(b'RW @ SPARSE "a"\nparentFileNameHint="s"'), "over another disk"),
        ("vmdk", put(12, bytes(8)), "its sizes are invalid"),
        ("vmdk", put(28, struct.pack("<Q", 40)), "its description is not where"),
        ("vmdk", put(56, b"\xff" * 8), "its header and its footer differ"),
        ("vmdk", put(4, b"\4"), "version 4"),
        ("vmdk", put(10000, b"parentFileNameHint=x"), "over another disk"),
        ("vdi", put(0x4C, b"\4"), "lies over another disk"),
        ("vdi", put(0x1A8, b"\1"), "lies over another disk"),
        ("vdi", put(0x170, struct.pack("<Q", 1 << 50)), "its sizes are invalid"),
        ("vdi", put(0x154, b"\xff\xff\xff\x7f"), "its tables lie outside"),
        ("vhdx", flip_parent_flag, "lies over another disk"),
        ("vhdx", petabyte, "invalid or too large"),
        ("vhdx", put(196608, b"none"), "region table is invalid"),
        ("qcow2", put(24, struct.pack(">Q", 1 << 50)), "its size is invalid"),
        ("qcow2", put(8, struct.pack(">QI", 512, 9)), "backing file"),
        ("raw", put(416, b"\0"), "no boot sector of boincvm"),
        ("raw", put(424, b"\xff" * 8), "no index"),
        ("raw", put(424, struct.pack("<Q", 1)), "no index"),
        ("raw", put((4 << 20) + 0x2000 + 16, struct.pack("<Q", 1 << 40)), "index is invalid"),
        ("raw", put((4 << 20) + 0x2000 + 24, struct.pack("<Q", 1 << 63)), "index is invalid"),
        ("raw", put((4 << 20) + 0x2000 + 32, struct.pack("<Q", 1 << 40)), "index is invalid"),
        ("raw", put((4 << 20) + 0x6000, b"\1"), "kernel or initrd are not those|is not a man"),
    ],
)
def test_hostile_headers(
    exported: Path, store: ImageStore, tmp_path: Path, disk_format: str,
    change: Callable[[bytearray], None], why: str,
) -> None:  # fmt: skip
    content = bytearray((exported / f"disk.{disk_format}").read_bytes())
    change(content)
    path = tmp_path / "hostile"
    path.write_bytes(content)
    refuse(path, disk_format, store, why)


def test_a_kernel_that_is_not_the_manifests(
    exported: Path, store: ImageStore, tmp_path: Path
) -> None:
    content = bytearray((exported / "disk.raw").read_bytes())
    with (exported / "disk.raw").open("rb") as file:
        index = read_index(file.fileno())
    content[index.kernel_at + 20] ^= 1
    (tmp_path / "disk").write_bytes(content)
    refuse(tmp_path / "disk", "raw", store, "kernel or initrd are not those of its manifest")


def test_a_disk_of_petabytes(store: ImageStore, tmp_path: Path) -> None:
    with (tmp_path / "disk").open("wb") as file:
        file.truncate(2 * MOST_SIZE)
    refuse(tmp_path / "disk", "raw", store, "invalid or too large")


def test_a_small_file_that_unpacks_to_much(
    exported: Path, store: ImageStore, tmp_path: Path, at_most: list[int]
) -> None:
    """Each part of the disk is the same part of the file."""
    blocks = 1 << 15
    content = bytearray((exported / "disk.vdi").read_bytes()[:1024])
    data_at = 1024 + 4 * blocks
    struct.pack_into("<II", content, 0x154, 1024, data_at)
    struct.pack_into("<Q", content, 0x170, blocks << 20)
    struct.pack_into("<II", content, 0x180, blocks, blocks)
    path = tmp_path / "bomb"
    path.write_bytes(content.ljust(1024, b"\0") + bytes(4 * blocks) + b"x" * (1 << 20))
    with pytest.raises(HostDiskFullError):
        import_disk.import_disk(path, "vdi", "new", store)
    assert at_most[-1] > 2 * blocks << 20
    nothing_left(store)


def test_an_appliance_of_holes(store: ImageStore, tmp_path: Path, at_most: list[int]) -> None:
    """Its disk is written with all its zeros, so there must be room for them."""
    info = tarfile.TarInfo("a.vmdk")
    info.size = 1 << 30
    path = tmp_path / "ova"
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT))
    os.truncate(path, 512 + info.size + 1024)
    assert path.stat().st_blocks * 512 < 1 << 20
    with pytest.raises(HostDiskFullError):
        import_disk.import_disk(path, "ova", "new", store)
    assert at_most[-1] > info.size
    nothing_left(store)


def archive(path: Path, *members: tuple[str, bytes, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as written:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "secret" if kind != tarfile.REGTYPE else ""
            info.size = len(content)
            written.addfile(info, io.BytesIO(content))
    return path


def test_hostile_appliances(exported: Path, store: ImageStore, tmp_path: Path) -> None:
    disk = (exported / "disk.vmdk").read_bytes()
    file = tarfile.REGTYPE
    for members, why in (
        ([("a.vmdk", file, disk), ("b.vmdk", file, disk)], "more than one disk"),
        ([("a.vmdk", file, disk), ("b.VHD", file, b"x")], "more than one disk"),
        ([("a.ovf", file, b"<Envelope/>")], "it has no disk"),
        ([("a.vmdk", tarfile.SYMTYPE, b"")], "not a VMDK file in the archive"),
        ([("a.vmdk", tarfile.LNKTYPE, b"")], "not a VMDK file in the archive"),
        ([("a.vhdx", file, disk)], "not a VMDK file in the archive"),
        ([(f"{number}", file, b"") for number in range(101)], "too many members"),
        ([("a.vmdk", file, b'# Disk DescriptorFile\nRW 8 FLAT "/etc/passwd"')], "description"),
    ):
        refuse(archive(tmp_path / "ova", *members), "ova", store, why)
    whole = (exported / "disk.ova").read_bytes()
    (tmp_path / "ova").write_bytes(whole[: len(whole) // 2 // 512 * 512])
    refuse(tmp_path / "ova", "ova", store, "is refused: ")
    # A name that leads elsewhere, and a descriptor that does, lead nowhere.
    ovf = b'<Envelope><References><File ovf:href="/etc/passwd"/></References></Envelope>'
    path = archive(tmp_path / "ova", ("a.ovf", file, ovf), ("../../x.vmdk", file, disk))
    import_disk.import_disk(path, "ova", "new", store)
    assert not (tmp_path / "x.vmdk").exists()


def test_an_archive_without_an_end(exported: Path, store: ImageStore, tmp_path: Path) -> None:
    """VirtualBox's have none."""
    with tarfile.open(exported / "disk.ova") as archive:
        last = archive.getmembers()[-1]
    end = last.offset_data + last.size + -last.size % 512
    (tmp_path / "ova").write_bytes((exported / "disk.ova").read_bytes()[:end])
    import_disk.import_disk(tmp_path / "ova", "ova", "new", store)
    (tmp_path / "ova").write_bytes((exported / "disk.ova").read_bytes()[: end - 2048])
    with pytest.raises(ImageDamagedError, match="the archive ends early"):
        import_disk.import_disk(tmp_path / "ova", "ova", "new", store, force=True)


def with_footer(content: bytes, footer: bytes) -> bytes:
    """Return a VMDK file whose header says that the one that counts is at its end."""
    marker = struct.pack("<QII", 1, 0, 3).ljust(512, b"\0")
    begun = content[:56] + b"\xff" * 8 + content[64:]
    return begun.ljust(-(-len(begun) // 512) * 512, b"\0") + marker + footer + bytes(512)


def test_a_disk_with_a_footer(exported: Path, store: ImageStore, tmp_path: Path) -> None:
    """VirtualBox's and VMware's compressed disks have one."""
    content = (exported / "disk.vmdk").read_bytes()
    path = tmp_path / "disk"
    larger = content[:12] + struct.pack("<Q", 1 << 40) + content[20:512]
    path.write_bytes(with_footer(content, larger))
    refuse(path, "vmdk", store, "its header and its footer differ")
    path.write_bytes(with_footer(content, content[:512]) + b"x")
    refuse(path, "vmdk", store, "its header and its footer differ")
    read_only = bytearray(content)
    described(b'RDONLY @ SPARSE "a machine-disk001.vmdk"')(read_only)
    path.write_bytes(with_footer(bytes(read_only), content[:512]))
    import_disk.import_disk(path, "vmdk", "new", store)


def test_what_is_no_file(store: ImageStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refuse(tmp_path / "pipe", "raw", store, "not a regular file")
    with pytest.raises(BoincvmError, match="cannot be imported"):
        import_disk.import_disk(tmp_path / "gone", "raw", "new", store)


@pytest.mark.parametrize("step", ["measure", "raw", "-f"])
def test_an_interrupted_import_leaves_nothing(
    exported: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def interrupted(*arguments: str | Path) -> bytes:
        if step in arguments[:6]:
            raise TerminatedError
        return run_qemu_img(*arguments)

    monkeypatch.setattr(import_disk, "run_qemu_img", interrupted)
    with pytest.raises(TerminatedError):
        import_disk.import_disk(exported / "disk.vdi", "vdi", "new", store)
    nothing_left(store)


@pytest.fixture(scope="module")
def heads(exported: Path) -> dict[str, bytes]:
    """What the checks read of each format, and a bit more."""
    return {name: (exported / f"disk.{name}").read_bytes()[: 3 << 20] for name in DISKS}


def test_what_qemu_img_leaves_behind_a_description(
    exported: Path, store: ImageStore, tmp_path: Path
) -> None:
    """A shorter text that replaces a longer one leaves its last line end, now and then."""
    content = bytearray((exported / "disk.vmdk").read_bytes())
    path, end = tmp_path / "disk.vmdk", content.index(b"\0", 512) + 1
    content[end : end + 1] = b"\n"
    path.write_bytes(content)
    import_disk.import_disk(path, "vmdk", "new", store)
    make_reproducible(path, "vmdk", "ab" * 32)
    assert path.read_bytes()[end : end + 1] == b"\0"
    store.remove("new")
    content[end : end + 1] = b"x"
    path.write_bytes(content)
    refuse(path, "vmdk", store, "there is more behind its description")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("disk_format", ["qcow2", "vdi", "vmdk", "vhdx"])
def test_whatever_bytes_are_changed_the_check_ends(
    heads: dict[str, bytes], tmp_path: Path, disk_format: str, data: st.DataObject
) -> None:
    places = {"qcow2": (0, 512), "vdi": (0x40, 512), "vmdk": (0, 2048), "vhdx": (0, 3 << 20)}
    content = bytearray(heads[disk_format])
    at = data.draw(st.integers(*places[disk_format]))
    changed = data.draw(st.binary(min_size=1, max_size=16))
    content[at : at + len(changed)] = changed
    length = data.draw(st.sampled_from([len(content), at, at + len(changed)]))
    path = tmp_path / "disk"
    path.write_bytes(content[:length])
    with path.open("rb") as file, suppress(DiskRefusedError):
        assert 0 < check_disk_file(file.fileno(), disk_format) <= MOST_SIZE


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.integers(0, (1 << 64) - 1) | st.integers(0, 1 << 24), min_size=8,
                       max_size=8))  # fmt: skip
def test_whatever_an_index_says_it_leads_nowhere(
    exported: Path, tmp_path: Path, values: list[int]
) -> None:
    path = tmp_path / "disk"
    if not path.exists():
        path.write_bytes((exported / "disk.raw").read_bytes())
    with path.open("r+b") as file:
        file.seek((4 << 20) + 0x2000 + 16)
        file.write(struct.pack("<7Q", *values[:7]))
        file.flush()
        with suppress(NotBootableError):
            index = read_index(file.fileno())
            size = path.stat().st_size
            assert 0 < index.root <= 4 << 20
            assert index.manifest_at + index.manifest <= size
            assert index.kernel_at + index.kernel <= size
            assert index.initrd_at + index.initrd <= size


def test_the_command(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    disk = exported / "disk.qcow2"
    assert main(["image", "import", str(disk), "new"]) == 0
    assert "image new has been imported: " in capsys.readouterr().out
    assert main(["image", "import", str(disk), "new"]) == ExitCode.USAGE
    assert "--force" in capsys.readouterr().err
    assert main(["image", "import", "--force", "--format", "vdi", str(disk), "new"]) != 0
    assert "is not a VDI file" in capsys.readouterr().err
