"""Checks of `boincvm doctor` for QEMU, one function each."""

import asyncio

from boincvm.errors import HypervisorMissingError
from boincvm.host.programs import find_program
from boincvm.host.virtualization import ACCELERATOR, HAS_SECCOMP
from boincvm.hypervisor.doctor import Check, CheckFunction, FindKernel, Status, last_line, output_of
from boincvm.hypervisor.qemu.command import INSTALL_HINT, PROGRAM, begin_command
from boincvm.hypervisor.qemu.target import TARGETS, X86_64
from boincvm.hypervisor.qemu_options import SANDBOX
from boincvm.hypervisor.qemu_version import read_version

_UNDER_SANDBOX = "under -sandbox on, " if HAS_SECCOMP else ""


def program(_: FindKernel) -> list[Check]:
    """Check for QEMU itself and its version."""
    path = find_program(PROGRAM)
    if path is None:
        return [Check("qemu", Status.FAILED, f"no {PROGRAM}", INSTALL_HINT)]
    version, trouble, remedy = read_version(path, INSTALL_HINT)
    if trouble:
        return [Check("qemu", Status.FAILED, trouble, remedy)]
    try:
        begin_command(X86_64)
    except HypervisorMissingError as error:
        return [Check("qemu", Status.FAILED, error.message, error.hint)]
    return [Check("qemu", Status.OK, f"{path}, version {version}")]


def other_programs(_: FindKernel) -> list[Check]:
    """Report the programs for architectures of other images, which need not be here."""
    found = []
    for target in TARGETS.values():
        path = find_program(target.program)
        if path is None or target.program == PROGRAM:
            continue
        name = f"qemu-{target.architecture.value}"
        version, trouble, remedy = read_version(path, INSTALL_HINT)
        if trouble:
            found.append(Check(name, Status.WARNING, trouble, remedy))
        else:
            found.append(Check(name, Status.OK, f"{path}, version {version}, emulates"))
    return found


def image_tool(_: FindKernel) -> list[Check]:
    """Check for qemu-img."""
    path = find_program("qemu-img")
    if path is None:
        return [Check("qemu-img", Status.FAILED, "no qemu-img", INSTALL_HINT)]
    return [Check("qemu-img", Status.OK, path)]


def sandbox(_: FindKernel) -> list[Check]:
    """Try QEMU's seccomp filter."""
    path = find_program(PROGRAM)
    if path is None:
        return [Check("sandbox", Status.FAILED, "not tried: there is no QEMU")]
    if not HAS_SECCOMP:
        detail, remedy = "none: QEMU has one only on Linux", "run only programs that you trust"
        return [Check("sandbox", Status.WARNING, detail, remedy)]
    # QEMU enters its sandbox before it answers this, and exits without making a machine.
    status, text = output_of(path, "-sandbox", SANDBOX, "-cpu", "help")
    if status != 0:
        remedy = "install a QEMU built with seccomp, and a kernel with CONFIG_SECCOMP"
        return [Check("sandbox", Status.FAILED, last_line(text), remedy)]
    return [Check("sandbox", Status.OK, "QEMU runs under its seccomp filter")]


def acceleration(find_kernel: FindKernel) -> list[Check]:
    """Report the verdict and, if it is emulation, what that means for safety."""
    from boincvm.hypervisor.qemu.acceleration import acceleration_remedy, probe

    kernel = find_kernel()
    verdict = asyncio.run(probe(kernel))
    took = "known from an earlier test" if verdict.cached else f"tested in {verdict.seconds:.1f} s"
    detail = f"{verdict.accelerator}: {verdict.reason} ({took})"
    if verdict.accelerator != "tcg":
        return [Check("acceleration", Status.OK, detail)]
    return [
        Check(
            "acceleration",
            Status.WARNING,
            f"{detail}; emulation is slow",
            acceleration_remedy(kernel),
        ),
        Check(
            "isolation",
            Status.WARNING,
            "QEMU's authors do not consider emulation a security boundary; so QEMU runs"
            f" {_UNDER_SANDBOX}without unneeded devices, and without a network unless requested",
            f"run programs that you do not trust where {ACCELERATOR.upper()} works",
        ),
    ]


CHECKS: tuple[tuple[str, CheckFunction], ...] = (
    ("qemu", program),
    ("qemu", other_programs),
    ("qemu-img", image_tool),
    ("sandbox", sandbox),
    ("acceleration", acceleration),
)
