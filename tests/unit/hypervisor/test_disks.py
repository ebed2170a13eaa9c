"""The names of the layers of machines' disks."""

from pathlib import Path

import pytest

from boincvm.hypervisor.disks import free_layer


@pytest.mark.parametrize("suffix", [".qcow2", ".vdi"])
def test_names_of_layers_go_upwards(tmp_path: Path, suffix: str) -> None:
    assert free_layer(tmp_path, suffix) == f"disk-000000{suffix}"
    for name in ("disk-000041", "disk-000007", "disk-x", "disk", "{a}", "disk-000050.bak"):
        (tmp_path / f"{name}{suffix}").touch()
    (tmp_path / "disk-000099.other").touch()
    assert free_layer(tmp_path, suffix) == f"disk-000042{suffix}"
