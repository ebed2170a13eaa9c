"""The boot disc and the disk layers that VirtualBox gets."""

import struct
import subprocess
import uuid
from pathlib import Path

import pytest

from boincvm.errors import HypervisorError
from boincvm.host.resources import processor_name
from boincvm.hypervisor.boot_disc import SECTOR, write_boot_disc
from boincvm.hypervisor.boot_loader import CODE, machine_code
from boincvm.hypervisor.contract import Checkpoint
from boincvm.hypervisor.saved_state import check_findings, check_layer
from boincvm.hypervisor.virtualbox import vdi
from boincvm.hypervisor.virtualbox.disks import LAYER
from boincvm.hypervisor.virtualbox.saved import compare, read_saved_state, read_table
from boincvm.hypervisor.virtualbox.vboxmanage import Version
from support.elf_kernel import an_elf

BELOW = uuid.UUID("b01c0000-0000-4000-8000-000000000001")


def test_the_loader_is_what_it_says(tmp_path: Path) -> None:
    """An assembler makes the same bytes from the text beside them."""
    source = "".join(line[24:].strip() + "\n" for line in CODE.splitlines())
    (tmp_path / "loader.s").write_text(source)
    for command in (
        ["as", "--32", "-o", "loader.o", "loader.s"],
        ["objcopy", "-O", "binary", "-j", ".text", "loader.o", "loader"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "loader").read_bytes() == machine_code()


@pytest.fixture
def initrd(tmp_path: Path) -> Path:
    path = tmp_path / "initrd"
    path.write_bytes(b"the initrd")
    return path


def test_a_boot_disc(tmp_path: Path, initrd: Path) -> None:
    kernel, disc = tmp_path / "kernel", tmp_path / "disc"
    kernel.write_bytes(an_elf())
    write_boot_disc(disc, kernel, initrd, "quiet a=b")
    content = disc.read_bytes()
    assert len(content) == 26 * SECTOR
    assert content[17 * SECTOR :].startswith(b"\0CD001\1EL TORITO SPECIFICATION")
    assert content[24 * SECTOR :].startswith(b"the kernel's code\0")
    assert content[25 * SECTOR :].startswith(b"the initrd\0")
    loader = content[20 * SECTOR : 24 * SECTOR]
    table = struct.unpack_from("<9I", loader, 0x400)
    assert table == (24, 1, 0x100_0000, 25, 1, 0x110_0000, 0, 0, 0)
    assert loader[0xC00:].startswith(b"quiet a=b\0")
    assert struct.unpack_from("<I", loader, 0x308) == (0x100_0040,)


@pytest.mark.parametrize(
    ("kernel", "why"),
    [
        (an_elf(entry=None), "no PVH entry point"),
        (an_elf(machine=b"\x7fELF\1\1"), "not a 64-bit ELF"),
        (an_elf()[:2000], "a segment is not in the file"),
        (an_elf()[:100], "headers are not in the file"),
        (b"", "not a 64-bit ELF"),
    ],
)
def test_a_kernel_that_cannot_be_started(
    tmp_path: Path, initrd: Path, kernel: bytes, why: str
) -> None:
    (tmp_path / "kernel").write_bytes(kernel)
    with pytest.raises(HypervisorError, match=why):
        write_boot_disc(tmp_path / "disc", tmp_path / "kernel", initrd, "")


def test_segments_without_content(tmp_path: Path, initrd: Path) -> None:
    """In the loader's table they would be its end: neither code nor initrd were loaded."""
    tables = []
    for zeros in ((), (0, 32)):
        (tmp_path / "kernel").write_bytes(an_elf(begin=512, zeros=zeros))
        write_boot_disc(tmp_path / "disc", tmp_path / "kernel", initrd, "")
        loader = (tmp_path / "disc").read_bytes()[20 * SECTOR :]
        tables.append(list(struct.iter_unpack("<III", loader[0x400:0x424])))
    (code, first, end), (same, second, _) = tables
    assert (code[2], end, same) == (0x100_0000, (0, 0, 0), code)
    assert first[:2] == second[:2]
    # Their memory is the kernel's nevertheless.
    assert (first[2], second[2]) == (0x110_0000, 33 << 20)


def test_too_many_arguments(tmp_path: Path, initrd: Path) -> None:
    (tmp_path / "kernel").write_bytes(an_elf())
    with pytest.raises(HypervisorError, match="too long"):
        write_boot_disc(tmp_path / "disc", tmp_path / "kernel", initrd, "x" * 2048)


@pytest.mark.parametrize("size", [512, 8 << 30, (8 << 30) + 512])
def test_an_empty_layer(tmp_path: Path, size: int) -> None:
    layer = vdi.write_layer(tmp_path / "disk.vdi", size, BELOW)
    assert vdi.read_layer(tmp_path / "disk.vdi") == (layer, BELOW, size)


def test_a_layer_that_is_larger_than_what_is_beneath(tmp_path: Path) -> None:
    """Data beyond is zero, and not read from beneath."""
    vdi.write_layer(tmp_path / "disk.vdi", 64 << 20, BELOW, 60 << 20)
    assert blocks_of(tmp_path / "disk.vdi") == dict.fromkeys(range(60, 64), b"")


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (0x40, b"\0", "not a VDI file"),
        (0x44, b"\2", "not a VDI file of version 1.1"),
        (0x4C, b"\1", "not a layer over another disk"),
        (0x154, b"\0\0\0\0", "sizes are invalid"),
        (0x158, b"\xff\xff\xff\x7f", "sizes are invalid"),
        (0x170, b"\0" * 8, "sizes are invalid"),
        (0x170, b"\xff" * 8, "sizes are invalid"),
        (0x178, b"\0\0\0\1", "sizes are invalid"),
        (0x180, b"\xff" * 4, "sizes are invalid"),
        (0x184, b"\xff" * 4, "sizes are invalid"),
    ],
)
def test_a_layer_that_is_refused(tmp_path: Path, at: int, value: bytes, why: str) -> None:
    path = tmp_path / "disk.vdi"
    vdi.write_layer(path, 8 << 30, BELOW)
    content = bytearray(path.read_bytes())
    content[at : at + len(value)] = value
    path.write_bytes(content)
    with pytest.raises(vdi.LayerRefusedError, match=why):
        vdi.read_layer(path)


def test_a_short_layer(tmp_path: Path) -> None:
    (tmp_path / "disk.vdi").write_bytes(b"<<< ")
    with pytest.raises(vdi.LayerRefusedError, match="not a VDI file"):
        vdi.read_layer(tmp_path / "disk.vdi")


@pytest.mark.parametrize("name", ["", "disk", "../a.vdi", "a/b.vdi", ".vdi", "a.vmdk", 7, "é.vdi"])
def test_names_that_are_no_layers(name: object) -> None:
    with pytest.raises(HypervisorError, match="not a layer"):
        check_layer(name, LAYER)


@pytest.mark.parametrize("name", ["disk-000007.vdi", "{a}.vdi"])
def test_names_that_are_layers(name: str) -> None:
    assert check_layer(name, LAYER) == name


def put_block(path: Path, block: int, content: bytes | None) -> None:
    """Write one block of a layer as VirtualBox does: at the end of the file, then into the map."""
    with path.open("r+b") as file:
        file.seek(0x158)
        (data,) = struct.unpack("<I", file.read(4))
        file.seek(0x184)
        (used,) = struct.unpack("<I", file.read(4))
        location = 0xFFFFFFFE
        if content is not None:
            file.seek(data + used * vdi.BLOCK)
            file.write(content.ljust(vdi.BLOCK, b"\0"))
            file.seek(0x184)
            file.write(struct.pack("<I", used + 1))
            location = used
        file.seek((1 << 20) + 4 * block)
        file.write(struct.pack("<I", location))


def blocks_of(path: Path) -> dict[int, bytes]:
    """Return the first bytes of each block that a layer has."""
    content = path.read_bytes()
    (data,) = struct.unpack_from("<I", content, 0x158)
    (count,) = struct.unpack_from("<I", content, 0x180)
    found = {}
    for block, (location,) in enumerate(struct.iter_unpack("<I", content[1 << 20 :][: 4 * count])):
        if location == 0xFFFFFFFE:
            found[block] = b""
        elif location != 0xFFFFFFFF:
            found[block] = content[data + location * vdi.BLOCK :][: vdi.BLOCK].rstrip(b"\0")
    return found


def test_layers_become_one(tmp_path: Path) -> None:
    """The uppermost block counts, even a block of zeros."""
    paths = [tmp_path / name for name in ("one.vdi", "two.vdi", "three.vdi")]
    below = BELOW
    for path in paths:
        below = vdi.write_layer(path, 64 << 20, below)
    for path, block, content in (
        (paths[0], 0, b"old"),
        (paths[0], 7, b"kept"),
        (paths[0], 9, b"gone"),
        (paths[1], 0, b"newer"),
        (paths[1], 9, None),
        (paths[2], 0, b"newest"),
        (paths[2], 63, b"last"),
    ):
        put_block(path, block, content)
    merged = vdi.merge_layers(paths, tmp_path / "merged.vdi")
    assert vdi.read_layer(tmp_path / "merged.vdi") == (merged, BELOW, 64 << 20)
    assert blocks_of(tmp_path / "merged.vdi") == {0: b"newest", 7: b"kept", 9: b"", 63: b"last"}


def test_a_block_beyond_the_end_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "one.vdi"
    vdi.write_layer(path, 64 << 20, BELOW)
    with path.open("r+b") as file:
        file.seek(1 << 20)
        file.write(struct.pack("<I", 5))
    with pytest.raises(vdi.LayerRefusedError, match="a block is not in the file"):
        vdi.merge_layers([path], tmp_path / "merged.vdi")


TABLE: dict[str, object] = {
    "virtualbox": "7.2.22",
    "processor": "a processor",
    "state": "2026-11-30T00-00-00-000000000Z.sav",
    "layers": ["disk-000001.vdi", "{00000000-0000-0000-0000-000000000001}.vdi"],
}


def test_a_saved_state() -> None:
    saved = read_table(TABLE)
    assert saved.table() == TABLE
    with pytest.raises(HypervisorError, match="not among the files"):
        read_saved_state(Checkpoint(1, {}, TABLE))


@pytest.mark.parametrize(
    "change",
    [
        {"virtualbox": "7.2.22; rm"},
        {"virtualbox": 7},
        {"processor": None},
        {"state": "../state.sav"},
        {"state": "state"},
        {"state": ".sav"},
        {"layers": []},
        {"layers": "disk-000001.vdi"},
        {"layers": ["/nowhere/passwd"]},
        {"layers": ["disk-000001.vdi"] * 2},
        {"layers": ["disk-000001.vdi"] * 1000},
    ],
    ids=str,
)
def test_a_saved_state_that_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(HypervisorError):
        read_table({**TABLE, **change})


def test_a_state_of_another_processor_or_of_a_newer_virtualbox() -> None:
    saved = read_table({**TABLE, "processor": processor_name()})
    check_findings(compare(saved, Version(7, 2, 22)))
    check_findings(compare(saved, Version(7, 4, 0)))
    with pytest.raises(HypervisorError, match=r"7\.2\.22 saved it, and 7\.1\.0 is here"):
        check_findings(compare(saved, Version(7, 1, 0)))
    with pytest.raises(HypervisorError, match="it was saved on the processor 'a processor'"):
        check_findings(compare(read_table(TABLE), Version(7, 2, 22)))
