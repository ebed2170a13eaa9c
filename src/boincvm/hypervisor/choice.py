"""Chooses the driver of a machine: what a person asks for, what the job asks for, or the best."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from boincvm.errors import BoincvmError, HypervisorMissingError, PreferencesError
from boincvm.hypervisor.preferences import AUTO, read_preferences
from boincvm.hypervisor.registry import DEFAULT
from boincvm.job.model import CheckpointNeed

if TYPE_CHECKING:
    from boincvm.hypervisor.doctor import FindKernel
    from boincvm.hypervisor.needs import Needs
    from boincvm.hypervisor.ranking import Ranked
    from boincvm.job.model import DriverRequest


class Choice(NamedTuple):
    """The driver of a machine."""

    driver: str
    reason: str = ""
    """One line for people; empty for the default, which was taken without a look at the host."""

    def __str__(self) -> str:
        return f"the driver {self.driver}: {self.reason or 'the default'}"


def choose(needs: Needs, request: DriverRequest, find_kernel: FindKernel) -> Choice:
    """Choose the driver for a machine of a job whose author is not the one who starts it.

    The volunteer's preferences come before what the job asks for, and before the best choice; a
    driver that is not fit for the machine is never used, even if requested. This takes seconds if
    it is not known yet what works on this host. Raises HypervisorMissingError, HostError, OSError.
    """
    preferred = read_preferences().driver
    if preferred == AUTO:
        return advise(needs, find_kernel)
    if preferred is not None:
        _check_installed(preferred)
    for name, who in ((preferred, "the preferences ask"), (request.driver, "the job asks")):
        if name in (None, AUTO):
            continue
        unfit = _why_unfit(name, needs, find_kernel, by_volunteer=name == preferred)
        if not unfit:
            return Choice(name, f"{who} for it")
        advice = advise(needs, find_kernel)
        return advice._replace(reason=f"{who} for {name}, but {unfit}; {advice.reason}")
    return advise(needs, find_kernel)


def choose_for_run(
    option: str | None, request: DriverRequest, needs: Needs, find_kernel: FindKernel
) -> Choice:
    """Choose the driver for a machine of a person who starts a job by hand.

    A name is taken as it is: from the command line, the preferences, or the job, in this order.
    Without one DEFAULT is taken without a look at the host, unless the job wants no checkpoints:
    the same command starts the same machine on each host. AUTO means the best choice. Raises
    HypervisorMissingError, HostError, OSError.
    """
    for name, who in (
        (option, "--driver asks"),
        (read_preferences().driver, "the preferences ask"),
        (request.driver, "the job asks"),
    ):
        if name == AUTO:
            return advise(needs, find_kernel)
        if name is not None:
            return Choice(name, f"{who} for it")
    if request.checkpoint is CheckpointNeed.NONE:
        return advise(needs, find_kernel)
    return Choice(DEFAULT)


def advise(needs: Needs, find_kernel: FindKernel) -> Choice:
    """Choose the best driver, ignoring all requests. Raises HypervisorMissingError, OSError."""
    from boincvm.hypervisor.advisor import verdicts
    from boincvm.hypervisor.ranking import best, rank

    ranked = rank(verdicts(find_kernel), needs)
    found = best(ranked)
    if found is None:
        raise _none_is_fit(ranked)
    return Choice(found.name, _reason(found, ranked))


def _why_unfit(name: str, needs: Needs, find_kernel: FindKernel, *, by_volunteer: bool) -> str:
    """Return why the driver `name` cannot be used for such a machine; empty if it can."""
    from boincvm.hypervisor.advisor import verdicts
    from boincvm.hypervisor.ranking import rank

    # A volunteer may choose a driver that does not isolate; an unsigned job may not.
    needs = needs._replace(is_trusted=needs.is_trusted or by_volunteer, is_named=True)
    for driver in rank(verdicts(find_kernel), needs):
        if driver.name == name:
            return driver.refused
    return "it is not installed"


def _check_installed(name: str) -> None:
    """Raise PreferencesError if the preferences ask for a driver that does not exist."""
    from boincvm.hypervisor.preferences import preferences_file
    from boincvm.hypervisor.registry import find_driver

    try:
        find_driver(name)
    except BoincvmError as error:
        raise PreferencesError(
            f"{preferences_file()} asks for the driver {name}: {error.message}", hint=error.hint
        ) from error


def _reason(found: Ranked, ranked: list[Ranked]) -> str:
    """Return why the first one was chosen, and why others that work here were not."""
    others = [
        f"{driver.name}: {driver.reason}"
        for driver in ranked
        if driver is not found and driver.verdict.is_usable
    ]
    return "; not ".join([found.reason, *others])


def _none_is_fit(ranked: list[Ranked]) -> HypervisorMissingError:
    if not any(driver.verdict.is_usable for driver in ranked):
        # Short, because a BOINC client's notice has room for 255 characters.
        usual = next(driver for driver in ranked if driver.name == DEFAULT)
        return HypervisorMissingError(
            f"no hypervisor works here: {usual.refused}", hint=usual.verdict.remedy
        )
    why = "; ".join(f"{driver.name}: {driver.refused}" for driver in ranked)
    return HypervisorMissingError(
        f"no driver here can run this machine: {why}",
        hint="boincvm doctor shows what each driver can do",
    )
