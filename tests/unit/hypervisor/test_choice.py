"""Which request decides about the driver of a machine."""

from pathlib import Path

import pytest

from boincvm.errors import HostError, HypervisorMissingError, PreferencesError
from boincvm.host import own_files_posix
from boincvm.hypervisor import advisor
from boincvm.hypervisor.choice import Choice, choose, choose_for_run
from boincvm.hypervisor.needs import Needs
from boincvm.hypervisor.preferences import Preferences, preferences_file, read_preferences
from boincvm.hypervisor.verdict import (
    Abilities,
    Ability,
    Isolation,
    Speed,
    Verdict,
    unusable,
)
from boincvm.job.model import NO_REQUEST, CheckpointNeed, DriverRequest

QEMU = Verdict(
    "7.2",
    speed=Speed.EMULATED,
    isolation=Isolation.SANDBOX,
    abilities=Abilities(frozenset(Ability)),
)
UML = Verdict("6.1", isolation=Isolation.NONE, abilities=Abilities(frozenset(), 1))
NO_CHECKPOINTS = DriverRequest(checkpoint=CheckpointNeed.NONE)
TRUSTED = Needs(CheckpointNeed.NONE, is_trusted=True)


def no_kernel() -> None:
    """Return None: there is no image here."""


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Verdict]:
    """Set what works on this host; there are no preferences."""
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path))
    found = {"qemu": QEMU, "uml": UML}
    monkeypatch.setattr(advisor, "verdicts", lambda find_kernel: found)
    return found


def prefer(text: str) -> None:
    preferences_file().parent.mkdir(mode=0o700, exist_ok=True)
    preferences_file().write_text(text)
    preferences_file().chmod(0o600)


def test_without_a_file_there_are_no_preferences() -> None:
    assert read_preferences() == Preferences()


def test_preferences() -> None:
    prefer('driver = "uml"\nmachines = 3\nmemory = "8G"\n')
    assert read_preferences() == Preferences("uml", 3, 8 << 30)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("driver = 3", "driver: found 3, expected a text in quotes"),
        ("driver = '../x'", "driver: found '../x'"),
        ("driver", "cannot be used"),
        ("speed = 'high'", "found 'speed', expected driver, machines, memory"),
        ("machines = 0", "machines: found 0, expected a whole number from 1"),
        ("machines = true", "machines: found true"),
        ("memory = 8", "memory: found 8, expected a size"),
        ("# " + "x" * (1 << 17), "more than 65536 bytes"),
        ("a = " + "[" * 100_000, "cannot be used"),
    ],
)
def test_preferences_that_cannot_be_read(text: str, why: str) -> None:
    prefer(text)
    with pytest.raises(PreferencesError) as caught:
        read_preferences()
    assert why in caught.value.message
    assert caught.value.hint == "correct the file, or remove it"


def test_preferences_that_somebody_else_may_write_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prefer("machines = 3")
    preferences_file().chmod(0o666)
    monkeypatch.setattr(own_files_posix, "_is_reachable", lambda path: True)
    with pytest.raises(HostError, match="can write to it"):
        read_preferences()


def test_a_run_takes_the_default_without_a_look(host: dict[str, Verdict]) -> None:
    host["qemu"] = unusable("it was looked at")
    assert choose_for_run(None, NO_REQUEST, Needs(), no_kernel) == Choice("qemu", "")


@pytest.mark.parametrize(
    ("option", "preferred", "request_", "driver", "reason"),
    [
        ("uml", "qemu", DriverRequest("qemu"), "uml", "--driver asks for it"),
        (None, "uml", DriverRequest("qemu"), "uml", "the preferences ask for it"),
        (None, None, DriverRequest("uml"), "uml", "the job asks for it"),
        ("auto", "uml", DriverRequest("uml"), "qemu", "emulation"),
        (None, "auto", DriverRequest("uml"), "qemu", "emulation"),
        (None, None, NO_CHECKPOINTS, "qemu", "emulation"),
        (None, "uml", NO_CHECKPOINTS, "uml", "the preferences ask for it"),
    ],
)
def test_who_comes_first_in_a_run(
    option: str | None, preferred: str | None, request_: DriverRequest, driver: str, reason: str
) -> None:
    if preferred:
        prefer(f"driver = '{preferred}'")
    needs = Needs(request_.checkpoint)
    choice = choose_for_run(option, request_, needs, no_kernel)
    assert choice.driver == driver
    assert choice.reason.startswith(reason)


def test_a_run_without_checkpoints_is_fast_where_that_is_safe(host: dict[str, Verdict]) -> None:
    host["uml"] = UML._replace(isolation=Isolation.SANDBOX)
    needs = Needs(CheckpointNeed.NONE)
    assert choose_for_run(None, NO_CHECKPOINTS, needs, no_kernel).driver == "uml"
    assert choose_for_run(None, NO_REQUEST, Needs(), no_kernel).driver == "qemu"


def test_a_task_takes_the_best_one_and_says_why() -> None:
    choice = choose(Needs(), NO_REQUEST, no_kernel)
    assert choice.driver == "qemu"
    assert "checkpoints" in choice.reason
    assert "; not uml: it does not isolate hostile programs" in choice.reason
    choice = choose(TRUSTED, NO_CHECKPOINTS, no_kernel)
    assert choice.driver == "uml"
    assert choice.reason.startswith("the host's own speed, no isolation of hostile programs")


def test_a_volunteers_preference_comes_before_the_jobs() -> None:
    prefer("driver = 'uml'")
    assert choose(Needs(), DriverRequest("qemu"), no_kernel) == (
        "uml",
        "the preferences ask for it",
    )


def test_but_it_does_not_spoil_a_job_that_it_does_not_fit() -> None:
    prefer("driver = 'uml'")
    choice = choose(Needs(network=True), NO_REQUEST, no_kernel)
    assert choice.driver == "qemu"
    assert choice.reason.startswith(
        "the preferences ask for uml, but its machines have no network; emulation"
    )


def test_a_job_that_nobody_has_signed_cannot_do_without_a_boundary() -> None:
    choice = choose(Needs(CheckpointNeed.NONE), DriverRequest("uml"), no_kernel)
    assert choice.driver == "qemu"
    assert "the job asks for uml, but it does not isolate" in choice.reason
    assert choose(TRUSTED, DriverRequest("uml"), no_kernel).driver == "uml"


def test_a_job_that_asks_for_a_driver_that_is_not_here() -> None:
    choice = choose(Needs(), DriverRequest("vmware"), no_kernel)
    assert choice.driver == "qemu"
    assert choice.reason.startswith("the job asks for vmware, but it is not installed; ")


def test_a_driver_that_nobody_has_seen_work_is_taken_by_name_alone(
    host: dict[str, Verdict],
) -> None:
    host["vmware"] = QEMU._replace(
        speed=Speed.NATIVE, isolation=Isolation.HARDWARE, is_proved=False
    )
    choice = choose(Needs(), DriverRequest(), no_kernel)
    assert choice.driver == "qemu"
    assert "vmware: its machines have never been tested" in choice.reason
    assert choose(Needs(), DriverRequest("vmware"), no_kernel) == ("vmware", "the job asks for it")
    prefer("driver = 'vmware'")
    assert choose(Needs(), DriverRequest(), no_kernel).driver == "vmware"


def test_preferences_for_a_driver_that_does_not_exist_are_the_volunteers_to_mend() -> None:
    prefer("driver = 'nonesuch'")
    with pytest.raises(PreferencesError, match="asks for the driver nonesuch"):
        choose(Needs(), NO_REQUEST, no_kernel)


def test_no_driver_is_fit(host: dict[str, Verdict]) -> None:
    host["qemu"] = unusable("no qemu", "apt-get install it")
    with pytest.raises(HypervisorMissingError) as caught:
        choose(Needs(CheckpointNeed.REQUIRED), NO_REQUEST, no_kernel)
    assert "qemu: no qemu" in caught.value.message
    assert "uml: it makes no checkpoints" in caught.value.message
    assert caught.value.hint == "boincvm doctor shows what each driver can do"
    host["uml"] = unusable("no uml", "apt-get install the other")
    with pytest.raises(HypervisorMissingError) as caught:
        choose(Needs(), NO_REQUEST, no_kernel)
    assert caught.value.hint == "apt-get install it"
