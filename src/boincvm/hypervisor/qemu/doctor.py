"""Checks of `boincvm doctor` for QEMU, one function each."""

import asyncio
import os
import re
import shutil
from pathlib import Path

from boincvm.host.users import group_of
from boincvm.hypervisor.doctor import Check, FindKernel, LookUp, Status, last_line, output_of
from boincvm.hypervisor.qemu.command import INSTALL_HINT, PROGRAM, SANDBOX

OLDEST = (7, 2)


def program(_: FindKernel) -> list[Check]:
    """Check for QEMU itself and its version."""
    path = shutil.which(PROGRAM)
    if path is None:
        return [Check("qemu", Status.FAILED, f"no {PROGRAM}", INSTALL_HINT)]
    status, text = output_of(path, "--version")
    found = re.search(r"version (\d+)\.(\d+)(?:\.\d+)*", text)
    if status != 0 or found is None:
        detail = f"{path} does not tell its version: {last_line(text)}"
        return [Check("qemu", Status.FAILED, detail, INSTALL_HINT)]
    if (int(found[1]), int(found[2])) < OLDEST:
        remedy = f"install QEMU {'.'.join(map(str, OLDEST))} or newer"
        return [Check("qemu", Status.FAILED, f"{path}, {found[0]}, is too old", remedy)]
    return [Check("qemu", Status.OK, f"{path}, {found[0]}")]


def image_tool(_: FindKernel) -> list[Check]:
    """Check for qemu-img."""
    path = shutil.which("qemu-img")
    if path is None:
        return [Check("qemu-img", Status.FAILED, "no qemu-img", INSTALL_HINT)]
    return [Check("qemu-img", Status.OK, path)]


def sandbox(_: FindKernel) -> list[Check]:
    """Try QEMU's seccomp filter."""
    path = shutil.which(PROGRAM)
    if path is None:
        return [Check("sandbox", Status.FAILED, "not tried: there is no QEMU")]
    # QEMU enters its sandbox before it answers this, and exits without making a machine.
    status, text = output_of(path, "-sandbox", SANDBOX, "-cpu", "help")
    if status != 0:
        remedy = "install a QEMU that is built with seccomp, and a kernel with CONFIG_SECCOMP"
        return [Check("sandbox", Status.FAILED, last_line(text), remedy)]
    return [Check("sandbox", Status.OK, "QEMU runs under its seccomp filter")]


def acceleration(find_kernel: FindKernel) -> list[Check]:
    """Report the verdict and, if it is emulation, what that means for safety."""
    from boincvm.hypervisor.qemu.acceleration import probe

    kernel = find_kernel()
    verdict = asyncio.run(probe(kernel))
    took = "known from before" if verdict.cached else f"found out in {verdict.seconds:.1f} s"
    detail = f"{verdict.accelerator}: {verdict.reason} ({took})"
    if verdict.accelerator != "tcg":
        return [Check("acceleration", Status.OK, detail)]
    return [
        Check("acceleration", Status.WARNING, f"{detail}; emulation is slow", _kvm_remedy(kernel)),
        Check(
            "isolation",
            Status.WARNING,
            "emulation is no security boundary, QEMU says; so QEMU runs under -sandbox on, "
            "with no device that is not needed and no network unless asked",
            "run programs that you do not trust where KVM works",
        ),
    ]


def _kvm_remedy(kernel: Path | None) -> str:
    device = Path("/dev/kvm")
    if not device.exists():
        return "turn virtualization on in the firmware, then: modprobe kvm_intel (or kvm_amd)"
    if not os.access(device, os.R_OK | os.W_OK):
        return f'usermod -aG {group_of(device)} "$USER", as root; then log in again'
    if kernel is None:
        return "boincvm image build base; then boincvm doctor tries KVM"
    return "nothing to do here: jobs run, only slower; a host whose KVM works is faster"


LOOK_UPS: tuple[tuple[str, LookUp], ...] = (
    ("qemu", program),
    ("qemu-img", image_tool),
    ("sandbox", sandbox),
    ("acceleration", acceleration),
)
