"""The HPET: which machines have one, and that a saved machine keeps what it had."""

from pathlib import Path

import pytest

from boincvm.errors import HypervisorError
from boincvm.hypervisor.architecture import Architecture
from boincvm.hypervisor.contract import Checkpoint, FileSeal, MachineSpec
from boincvm.hypervisor.qemu.command import machine_command
from boincvm.hypervisor.qemu.identity import identity
from boincvm.hypervisor.qemu.launch import Launch
from boincvm.hypervisor.qemu.saved import SavedState, read_saved_state
from boincvm.hypervisor.qemu.target import Target
from support.snapshots import DISK, MEMORY, TABLE

SPEC = MachineSpec(Path("/m"), Path("/kernel"), Path("/initrd"), Path("/root"), 256 << 20, cpus=1)
LAYERS = ("disk-000001.qcow2",)


def command(accelerator: str, launch: Launch, **changes: object) -> str:
    spec = SPEC._replace(**changes)  # type: ignore[arg-type]
    return " ".join(
        machine_command(spec, accelerator, launch, qmp="fd=3", link="fd=4", console="fd=5")
    )


def saved(**changes: object) -> SavedState:
    table = {name: value for name, value in {**TABLE, **changes}.items() if value is not None}
    seal = FileSeal(0, "0" * 64)
    return read_saved_state(Checkpoint(1, {MEMORY: seal, DISK: seal}, table))


@pytest.mark.parametrize("display", [False, True])
def test_an_emulated_machine_with_one_processor_has_one(*, display: bool) -> None:
    words = command("tcg", Launch(LAYERS), display=display)
    assert "hpet=on" in words
    assert " nolapic_timer" in words


@pytest.mark.parametrize(
    ("accelerator", "changes"),
    [("kvm", {}), ("tcg", {"cpus": 2}), ("tcg", {"architecture": Architecture.AARCH64})],
)
def test_other_machines_have_none(accelerator: str, changes: dict[str, object]) -> None:
    words = command(accelerator, Launch(LAYERS), **changes)
    assert "hpet=on" not in words
    assert "nolapic_timer" not in words


@pytest.mark.parametrize("hpet", [None, False, True])
def test_a_saved_machine_keeps_what_it_had(*, hpet: bool | None) -> None:
    """One that an older boincvm saved has none, and its checkpoint does not mention it."""
    state = saved(hpet=hpet)
    assert state.has_hpet is bool(hpet)
    words = command("tcg", Launch(LAYERS, incoming="defer", has_hpet=state.has_hpet))
    assert ("hpet=on" if hpet else "hpet=off") in words


@pytest.mark.parametrize(
    "changes",
    [
        {"hpet": "on,x=y"},
        {"hpet": 1},
        {"accelerator": "kvm", "cpu": "host", "hpet": True},
        {"type": "virt-7.2", "cpu": "neoverse-n1", "hpet": True},
    ],
)
def test_a_checkpoint_claims_no_other(changes: dict[str, object]) -> None:
    with pytest.raises(HypervisorError, match="hpet is invalid"):
        saved(**changes)


def test_a_golden_snapshot_without_one_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity("tcg")
    monkeypatch.setattr(Target, "has_hpet", lambda *_, **__: False)
    assert identity("tcg") != before
