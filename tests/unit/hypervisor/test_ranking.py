"""Which driver is ranked first, and why others are not."""

import pytest

from boincvm.hypervisor.needs import Needs
from boincvm.hypervisor.ranking import best, rank
from boincvm.hypervisor.verdict import (
    Abilities,
    Ability,
    Isolation,
    Speed,
    Verdict,
    unusable,
)
from boincvm.job.model import CheckpointNeed

EVERYTHING = Abilities(frozenset(Ability))
KVM = Verdict("7.2", isolation=Isolation.HARDWARE, abilities=EVERYTHING)
EMULATION = KVM._replace(speed=Speed.EMULATED, isolation=Isolation.SANDBOX)
UML = Verdict("6.1", isolation=Isolation.NONE, abilities=Abilities(frozenset(), most_cpus=1))
BOXED_UML = UML._replace(isolation=Isolation.SANDBOX)
VIRTUALBOX = Verdict(
    "7.2",
    isolation=Isolation.HARDWARE,
    abilities=Abilities(frozenset((Ability.CHECKPOINT, Ability.NETWORK))),
)
INTERPRETER = VIRTUALBOX._replace(speed=Speed.INTERPRETED)
MISSING = unusable("no such program", "install it")
REQUIRED, WANTED, NONE = CheckpointNeed.REQUIRED, CheckpointNeed.WANTED, CheckpointNeed.NONE


@pytest.mark.parametrize(
    ("qemu", "uml", "virtualbox", "needs", "first"),
    [
        # Hardware acceleration: QEMU, whatever is asked for.
        (KVM, UML, VIRTUALBOX, Needs(), "qemu"),
        (KVM, BOXED_UML, VIRTUALBOX, Needs(NONE), "qemu"),
        (KVM, UML, VIRTUALBOX, Needs(NONE, is_trusted=True), "qemu"),
        # None: User-mode Linux, if no checkpoint is asked for, and it keeps the guest in.
        (EMULATION, BOXED_UML, MISSING, Needs(NONE), "uml"),
        (EMULATION, UML, MISSING, Needs(NONE, is_trusted=True), "uml"),
        (EMULATION, UML, MISSING, Needs(NONE), "qemu"),
        (EMULATION, BOXED_UML, MISSING, Needs(WANTED), "qemu"),
        (EMULATION, BOXED_UML, MISSING, Needs(REQUIRED), "qemu"),
        (EMULATION, BOXED_UML, MISSING, Needs(NONE, network=True), "qemu"),
        (EMULATION, BOXED_UML, MISSING, Needs(NONE, cpus=2), "qemu"),
        (EMULATION, BOXED_UML, MISSING, Needs(NONE, firmware=True), "qemu"),
        (EMULATION, BOXED_UML, MISSING, Needs(NONE, display=True), "qemu"),
        (EMULATION, BOXED_UML, MISSING, Needs(NONE, on_demand=True), "qemu"),
        (MISSING, BOXED_UML, VIRTUALBOX, Needs(NONE, on_demand=True), None),
        (EMULATION, BOXED_UML, VIRTUALBOX, Needs(NONE, gpu=True), "qemu"),
        (MISSING, BOXED_UML, VIRTUALBOX, Needs(gpu=True), None),
        # VirtualBox where it is the better one, or the only one.
        (EMULATION, UML, VIRTUALBOX, Needs(), "virtualbox"),
        (EMULATION, UML, INTERPRETER, Needs(), "qemu"),
        (MISSING, UML, INTERPRETER, Needs(), "virtualbox"),
        (EMULATION, UML, VIRTUALBOX, Needs(firmware=True), "qemu"),
        # A job that wants checkpoints runs where there are none, too, but not one that must.
        (MISSING, BOXED_UML, MISSING, Needs(WANTED), "uml"),
        (MISSING, BOXED_UML, MISSING, Needs(REQUIRED), None),
        (MISSING, UML, MISSING, Needs(), None),
        (MISSING, MISSING, MISSING, Needs(), None),
    ],
)
def test_the_best_one(
    qemu: Verdict, uml: Verdict, virtualbox: Verdict, needs: Needs, first: str | None
) -> None:
    ranked = rank({"qemu": qemu, "uml": uml, "virtualbox": virtualbox}, needs)
    assert {one.name for one in ranked} == {"qemu", "uml", "virtualbox"}
    found = best(ranked)
    assert (found.name if found else None) == first
    assert found is None or found is ranked[0]


@pytest.mark.parametrize(
    ("verdict", "needs", "why"),
    [
        (MISSING, Needs(), "no such program"),
        (BOXED_UML, Needs(REQUIRED), "it makes no checkpoints, and the job requires them"),
        (BOXED_UML, Needs(network=True), "no network"),
        (BOXED_UML, Needs(display=True), "no screen"),
        (BOXED_UML, Needs(firmware=True), "no firmware"),
        (BOXED_UML, Needs(gpu=True), "its machines cannot have a graphics card of the host"),
        (BOXED_UML, Needs(cpus=2), "at most 1 processors, and the job asks for 2"),
        (UML, Needs(), "does not isolate hostile programs"),
    ],
)
def test_why_not(verdict: Verdict, needs: Needs, why: str) -> None:
    (one,) = rank({"it": verdict}, needs)
    assert why in one.refused
    assert one.reason == one.refused


def test_what_speaks_for_it() -> None:
    (one,) = rank({"qemu": EMULATION}, Needs())
    assert one.reason == (
        "emulation, 15 to 23 times slower than the host, isolated by a sandbox, checkpoints,"
        " starts at once from golden snapshots"
    )
    (one,) = rank({"uml": UML}, Needs(is_trusted=True))
    assert "no isolation of hostile programs" in one.reason


def test_one_that_nobody_has_seen_work_is_not_taken_for_want_of_others() -> None:
    unproved = VIRTUALBOX._replace(is_proved=False)
    (found, _) = rank({"qemu": MISSING, "vmware": unproved}, Needs(is_trusted=True))
    assert found.refused.startswith("its machines have never been tested")
    assert best(rank({"vmware": unproved}, Needs(is_named=True))) is not None
