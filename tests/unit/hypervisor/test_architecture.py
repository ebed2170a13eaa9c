"""A machine's architecture comes from its kernel, and a driver runs it or reports that it
cannot."""

import asyncio
import struct
from pathlib import Path

import pytest

from boincvm.errors import HypervisorError, HypervisorMissingError, UsageError
from boincvm.hypervisor.architecture import Architecture, kernel_architecture
from boincvm.hypervisor.contract import Checkpoint, FileSeal, MachineSpec
from boincvm.hypervisor.needs import Needs
from boincvm.hypervisor.qemu import command as qemu_command
from boincvm.hypervisor.qemu.driver import QemuDriver
from boincvm.hypervisor.qemu.identity import check_identity
from boincvm.hypervisor.qemu.launch import Launch
from boincvm.hypervisor.qemu.saved import read_saved_state
from boincvm.hypervisor.qemu.target import AARCH64, X86_64
from boincvm.hypervisor.ranking import best, rank
from boincvm.hypervisor.registry import BUILT_IN, find_driver, open_driver, prestart
from boincvm.hypervisor.verdict import Abilities, Verdict
from support.snapshots import DISK, MEMORY, TABLE


def elf(machine: int) -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, machine) + bytes(100)


IMAGE = b"MZ" + bytes(54) + b"ARM\x64" + bytes(100)
"""The beginning of an arm64 Image."""
ON_ARM = [name for name in BUILT_IN if name == "qemu"]


@pytest.mark.parametrize(
    ("content", "architecture"),
    [
        (elf(62), Architecture.X86_64),
        (elf(183), Architecture.AARCH64),
        (IMAGE, Architecture.AARCH64),
        (elf(8), Architecture.X86_64),  # MIPS: QEMU will refuse it
        (IMAGE[:59], Architecture.X86_64),
        (b"", Architecture.X86_64),
    ],
)
def test_the_kernel_tells_it(tmp_path: Path, content: bytes, architecture: Architecture) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(content)
    assert kernel_architecture(kernel) is architecture


def test_where_there_is_no_kernel(tmp_path: Path) -> None:
    assert kernel_architecture(None) is Architecture.X86_64
    with pytest.raises(HypervisorError, match="kernel cannot be read"):
        kernel_architecture(tmp_path / "kernel")


@pytest.fixture
def arm_kernel(tmp_path: Path) -> Path:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(IMAGE)
    return kernel


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name not in ON_ARM])
def test_a_driver_that_does_not_run_it_says_so(name: str, arm_kernel: Path) -> None:
    for start in (
        lambda: asyncio.run(open_driver(name, arm_kernel)),
        lambda: prestart(name, arm_kernel),
    ):
        with pytest.raises(UsageError, match=f"{name} runs no images for aarch64") as caught:
            start()
        assert "qemu" in caught.value.hint


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_driver_runs_x86(name: str) -> None:
    """The registry does not check it."""
    assert Architecture.X86_64 in find_driver(name).abilities.architectures


def test_without_its_emulator(
    arm_kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not needed for other images; an error shows the command where it is."""
    only = tmp_path / "bin"
    only.mkdir()
    (only / X86_64.program).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(only))
    for start in (
        lambda: asyncio.run(open_driver("qemu", arm_kernel)),
        lambda: prestart("qemu", arm_kernel),
    ):
        with pytest.raises(HypervisorMissingError, match="qemu-system-aarch64 is not") as caught:
            start()
        assert "install --no-install-recommends qemu-system-arm" in caught.value.hint


def test_it_is_emulated_whatever_the_host_can_do(
    arm_kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KVM is not tested, nor its verdict used, which is for x86-64."""
    only = tmp_path / "bin"
    only.mkdir()
    (only / AARCH64.program).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(only))
    driver = asyncio.run(open_driver("qemu", arm_kernel))
    assert isinstance(driver, QemuDriver)
    assert (driver.accelerator, driver.target) == ("tcg", AARCH64)
    assert not driver.has_firmware


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    files = (tmp_path / name for name in ("kernel", "initrd", "root"))
    spec = MachineSpec(tmp_path, *files, memory=256 << 20, cpus=2, display=True, network=True)
    return spec._replace(architecture=Architecture.AARCH64)


def test_its_command_line(spec: MachineSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_command, "find_program", lambda name: name)
    words = qemu_command.machine_command(
        spec, "tcg", Launch(("a",)), qmp="fd=3", link="fd=4", console="fd=5"
    )
    assert words[0] == "qemu-system-aarch64"
    assert words[words.index("-cpu") + 1] == "neoverse-n1"
    assert words[words.index("-machine") + 1].startswith("virt,memory-backend=")
    assert "console=ttyAMA0" in words[words.index("-append") + 1].split()
    assert "-vnc" not in words
    assert QemuDriver("tcg", architecture=Architecture.AARCH64).machine(spec).display is None


def test_a_machine_of_another_architecture_than_the_drivers(spec: MachineSpec) -> None:
    driver = QemuDriver("kvm")
    seal = FileSeal(0, "0" * 64)
    checkpoint = Checkpoint(1, {MEMORY: seal, DISK: seal}, TABLE)
    for make in (
        lambda: driver.machine(spec),
        lambda: driver.restore(spec, checkpoint),
        lambda: driver.golden_snapshots.machine(spec),
        lambda: driver.golden_snapshots.clone(spec, spec.directory),
    ):
        with pytest.raises(HypervisorError, match="for aarch64 cannot boot a kernel for x86_64"):
            make()


VIRT = {**TABLE, "type": "virt-7.2", "accelerator": "tcg", "cpu": "neoverse-n1"}


def saved(table: dict[str, object]) -> Checkpoint:
    seal = FileSeal(0, "0" * 64)
    return Checkpoint(1, {MEMORY: seal, DISK: seal}, table)


def test_a_saved_machine_goes_on_with_its_own_image_alone() -> None:
    state = read_saved_state(saved(VIRT))
    assert state.target is AARCH64
    assert check_identity(state, "kvm", AARCH64) == "tcg"
    for table, target in ((VIRT, X86_64), (TABLE, AARCH64)):
        with pytest.raises(HypervisorError, match="its image is for"):
            check_identity(read_saved_state(saved(table)), "tcg", target)


@pytest.mark.parametrize(
    "change",
    [
        {"cpu": "max"},
        {"cpu": "max,-erms,-fsrm"},
        {"cpu": "neoverse-n1", "accelerator": "kvm"},
        {"cpu": "qemu64", "accelerator": "whpx"},
        {"type": "virt"},
        {"type": "virt-7.2,x=y"},
        {"type": "pc-q35-7.2"},
        {"type": "raspi3b-7.2"},
    ],
)
def test_a_saved_machine_that_we_never_made(change: dict[str, object]) -> None:
    with pytest.raises(HypervisorError, match=r"invalid|never saved"):
        read_saved_state(saved({**VIRT, **change}))


def test_it_counts_when_a_driver_is_chosen() -> None:
    both = Abilities(frozenset(), architectures=frozenset(Architecture))
    verdicts = {"one": Verdict(), "two": Verdict(abilities=both)}
    for architecture, names in (
        (Architecture.X86_64, ["one", "two"]),
        (Architecture.AARCH64, ["two"]),
    ):
        ranked = rank(verdicts, Needs(architecture=architecture, is_trusted=True))
        assert [one.name for one in ranked if not one.refused] == names
    assert best(rank({"one": Verdict()}, Needs(architecture=Architecture.AARCH64))) is None
    assert ranked[-1].refused == "it runs no images for aarch64"
