"""The guest's CPU: the default, and the one with which a saved machine started."""

import pytest

from boincvm.errors import HypervisorError
from boincvm.hypervisor.contract import Checkpoint, FileSeal
from boincvm.hypervisor.qemu import command as qemu_command
from boincvm.hypervisor.qemu.command import CPUS, acceleration_options
from boincvm.hypervisor.qemu.identity import identity
from boincvm.hypervisor.qemu.saved import read_saved_state
from support.snapshots import DISK, MEMORY, TABLE

SEAL = FileSeal(0, "0" * 64)


def saved(**changes: object) -> Checkpoint:
    table = {name: value for name, value in {**TABLE, **changes}.items() if value is not None}
    return Checkpoint(1, {MEMORY: SEAL, DISK: SEAL}, table)


def test_an_emulated_guest_does_not_move_memory_byte_by_byte() -> None:
    assert acceleration_options("tcg")[-2:] == ["-cpu", "max,-erms,-fsrm"]
    assert acceleration_options("kvm")[-2:] == ["-cpu", "host"]


@pytest.mark.parametrize(
    ("accelerator", "cpu", "expected"),
    [
        ("tcg", CPUS["tcg"], CPUS["tcg"]),
        ("tcg", "max", "max"),
        ("tcg", None, "max"),
        ("kvm", None, "host"),
        ("kvm", "host", "host"),
    ],
)
def test_a_saved_machine_goes_on_with_the_cpu_that_it_had(
    accelerator: str, cpu: str | None, expected: str
) -> None:
    """A state from an older boincvm does not record it; it had the default of that time."""
    state = read_saved_state(saved(accelerator=accelerator, cpu=cpu))
    assert state.cpu == expected
    assert acceleration_options(accelerator, state.cpu)[-2:] == ["-cpu", expected]


@pytest.mark.parametrize(
    ("accelerator", "cpu"), [("kvm", "max"), ("tcg", "host"), ("tcg", "max,x=y"), ("tcg", "")]
)
def test_a_saved_machine_names_no_other_cpu(accelerator: str, cpu: str) -> None:
    with pytest.raises(HypervisorError, match="cpu is invalid"):
        read_saved_state(saved(accelerator=accelerator, cpu=cpu))


def test_a_golden_snapshot_of_another_cpu_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity("tcg")
    monkeypatch.setitem(qemu_command.CPUS, "tcg", "max")
    assert identity("tcg") != before
