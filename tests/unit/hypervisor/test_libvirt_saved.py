"""What a manifest may contain for a machine that libvirt saved, and where it can resume."""

import json

import pytest

from boincvm.errors import HypervisorError
from boincvm.host.resources import processor_name
from boincvm.hypervisor.contract import Checkpoint, FileSeal
from boincvm.hypervisor.libvirt.saved import (
    MOST_LAYERS,
    SavedState,
    Versions,
    examine,
    read_saved_state,
)
from boincvm.hypervisor.saved_state import check_findings

HERE = Versions("qemu", 7_002_000, 9_000_000, is_accelerated=False)
STATE = SavedState(
    versions=HERE,
    id="0123abcd",
    uuid="01234567-89ab-cdef-0123-456789abcdef",
    machine_type="pc-q35-7.2",
    processor=processor_name(),
    memory="memory-000001",
    layers=("disk-000000.qcow2", "disk-000001.qcow2"),
)


def checkpoint(**changes: object) -> Checkpoint:
    seal = FileSeal(1, "00")
    files = dict.fromkeys((STATE.memory, *STATE.layers), seal)
    return Checkpoint(1, files, {**json.loads(json.dumps(STATE.table())), **changes})


def test_it_is_read_as_it_was_written() -> None:
    assert read_saved_state(checkpoint()) == STATE
    check_findings(examine(STATE, HERE))
    assert all(finding.is_good for finding in examine(STATE, HERE))


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "../../etc"},
        {"id": None},
        {"uuid": "01234567"},
        {"type": "pc-q35-7.2'/><x y='"},
        {"memory": "../memory-000001"},
        {"memory": "memory-000002"},
        {"layers": []},
        {"layers": "disk-000000.qcow2"},
        {"layers": ["disk-000000.qcow2"] * 2},
        {"layers": ["disk-000000.qcow2", "/nowhere/passwd"]},
        {"layers": ["disk-000000.qcow2", 3]},
        {"layers": ["disk-000000.qcow2", "disk-000002.qcow2"]},
        {"layers": ["disk-000000.qcow2"] * (MOST_LAYERS + 1)},
        {"hypervisor": "../qemu"},
        {"hypervisor_version": "7.2"},
        {"libvirt": -1},
        {"libvirt": True},
        {"is_accelerated": "no"},
        {"processor": 3},
    ],
)
def test_a_manifest_that_says_something_else(changes: dict[str, object]) -> None:
    with pytest.raises(HypervisorError):
        read_saved_state(checkpoint(**changes))


@pytest.mark.parametrize(
    ("here", "what"),
    [
        (HERE._replace(hypervisor_version=7_001_000), "qemu 7.2.0 saved it, and qemu 7.1.0 is"),
        (HERE._replace(libvirt=8_010_000), "libvirt 9.0.0 saved it, and 8.10.0 is here"),
        (HERE._replace(hypervisor="xen"), "and xen 7.2.0 is here"),
        (HERE._replace(is_accelerated=True), "saved emulated, and here it would be accelerated"),
    ],
)
def test_another_host(here: Versions, what: str) -> None:
    """What is older, or different, is named."""
    with pytest.raises(HypervisorError, match="cannot resume here") as caught:
        check_findings(examine(STATE, here))
    assert what in caught.value.message
    assert any(not finding.is_good and what in finding.what for finding in examine(STATE, here))


def test_an_upgrade() -> None:
    """Newer programs accept what older ones saved."""
    check_findings(examine(STATE, HERE._replace(hypervisor_version=8_000_000, libvirt=10_000_000)))


def test_another_processor() -> None:
    """It matters where the guest's code runs on it."""
    moved = STATE._replace(processor="another")
    check_findings(examine(moved, HERE))
    accelerated = HERE._replace(is_accelerated=True)
    with pytest.raises(HypervisorError, match="on the processor 'another'"):
        check_findings(examine(moved._replace(versions=accelerated), accelerated))
