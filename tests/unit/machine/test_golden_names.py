"""Golden snapshots of different machines have different names, and only some of them stay."""

import os
from pathlib import Path

from boincvm.hypervisor.contract import MachineSpec
from boincvm.image.store import ImageStore
from boincvm.job.model import MachineShape
from boincvm.machine.golden.background import command
from boincvm.machine.golden.maker import MOST, remove_goldens, remove_least_used
from boincvm.machine.golden.snapshots import TABLE, needs, snapshot_name

DIGEST = "0123456789abcdef" * 4
SPEC = MachineSpec(*map(Path, ("/d", "/kernel", "/initrd", "/root")), memory=256 << 20, cpus=2)


def test_each_driver_has_its_own() -> None:
    """The default driver's keep their former names."""
    assert snapshot_name(DIGEST, SPEC, {"driver": "qemu"}) == "0123456789abcdef-256-2"
    assert snapshot_name(DIGEST, SPEC, {}) == "0123456789abcdef-256-2"
    theirs = snapshot_name(DIGEST, SPEC._replace(network=True), {"driver": "virtualbox"})
    assert theirs == "0123456789abcdef-256-2-network-virtualbox"


def test_those_of_another_name_for_the_same_image_stay(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    table = store.golden / f"{DIGEST[:16]}-256-1" / TABLE
    for path, text in ((tmp_path / "names" / "other", DIGEST), (table, "{}")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    remove_goldens(store, DIGEST)
    assert table.exists()
    (tmp_path / "names" / "other").unlink()
    remove_goldens(store, DIGEST)
    assert not table.parent.exists()


def test_those_whose_image_has_gone_go_first(tmp_path: Path) -> None:
    """Even if one of them was used last."""
    store = ImageStore(tmp_path)
    (tmp_path / "objects" / DIGEST).mkdir(parents=True)
    ours = [f"{DIGEST[:16]}-{256 + number}-1" for number in range(MOST + 1)]
    gone = "f" * 16 + "-256-1"
    for last_use, name in enumerate([*ours, gone]):
        (store.golden / name).mkdir(parents=True)
        (store.golden / name / TABLE).touch()
        os.utime(store.golden / name / TABLE, (last_use, last_use))
    remove_least_used(store)
    assert {path.name for path in store.golden.iterdir()} == set(ours[1:])


def test_those_with_a_journal_are_others() -> None:
    """A copy's root is mounted as that of the snapshot is."""
    durable = SPEC._replace(durable=True)
    assert snapshot_name(DIGEST, durable, {}) == "0123456789abcdef-256-2-durable"
    assert needs(DIGEST, durable, {}) != needs(DIGEST, SPEC, {})
    assert "--controller" in command(MachineShape(), Path("/s"), balloon=False, durable=True)
    assert "--controller" not in command(MachineShape(), Path("/s"), balloon=False)


def test_one_is_made_with_the_driver_that_ran() -> None:
    argv = command(MachineShape("base"), Path("/store"), balloon=False, driver="virtualbox")
    at = argv.index("--driver")
    assert argv[at + 1] == "virtualbox"
    assert at < argv.index("--")
