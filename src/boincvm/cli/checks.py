"""What `boincvm doctor` looks at: one function, one check, one line of the report."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from boincvm import paths
from boincvm.errors import BoincvmError, HostError
from boincvm.exit_codes import ExitCode
from boincvm.host.resources import available_memory
from boincvm.host.users import group_of
from boincvm.hypervisor.qemu import command as qemu_command
from boincvm.sizes import format_size

MIB = 1 << 20
OLDEST_PYTHON = (3, 11)
OLDEST_QEMU = (7, 2)
LEAST_DISK = 256 * MIB
COMFORTABLE_DISK = 4096 * MIB
COMFORTABLE_MEMORY = 768 * MIB
"""The default machine's 512 MiB and what QEMU itself takes."""

_PROGRAM_LIMIT = 20.0


class Status(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `failed`: no job can run. `remedy`: what to type or do about it.

    `exit_code` is what doctor ends with if this is the first that failed.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""
    exit_code: ExitCode = ExitCode.HYPERVISOR_MISSING


def python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return Check("python", Status.OK, found)
    wanted = ".".join(map(str, OLDEST_PYTHON))
    return Check("python", Status.FAILED, found, f"install Python {wanted} or newer")


def qemu() -> Check:
    name = qemu_command.PROGRAM
    path = shutil.which(name)
    if path is None:
        return Check("qemu", Status.FAILED, f"no {name}", qemu_command.INSTALL_HINT)
    status, text = _output_of(path, "--version")
    found = re.search(r"version (\d+)\.(\d+)(?:\.\d+)*", text)
    if status != 0 or found is None:
        detail = f"{path} does not tell its version: {_last_line(text)}"
        return Check("qemu", Status.FAILED, detail, qemu_command.INSTALL_HINT)
    if (int(found[1]), int(found[2])) < OLDEST_QEMU:
        wanted = ".".join(map(str, OLDEST_QEMU))
        remedy = f"install QEMU {wanted} or newer"
        return Check("qemu", Status.FAILED, f"{path}, {found[0]}, is too old", remedy)
    return Check("qemu", Status.OK, f"{path}, {found[0]}")


def qemu_img() -> Check:
    path = shutil.which("qemu-img")
    if path is None:
        return Check("qemu-img", Status.FAILED, "no qemu-img", qemu_command.INSTALL_HINT)
    return Check("qemu-img", Status.OK, path)


def sandbox() -> Check:
    path = shutil.which(qemu_command.PROGRAM)
    if path is None:
        return Check("sandbox", Status.FAILED, "not tried: there is no QEMU")
    # QEMU enters its sandbox before it answers this, and ends without making a machine.
    status, text = _output_of(path, "-sandbox", qemu_command.SANDBOX, "-cpu", "help")
    if status != 0:
        remedy = "install a QEMU that is built with seccomp, and a kernel with CONFIG_SECCOMP"
        return Check("sandbox", Status.FAILED, _last_line(text), remedy)
    return Check("sandbox", Status.OK, "QEMU runs under its seccomp filter")


def setpriv() -> Check:
    path = shutil.which("setpriv")
    if path is None:
        detail = "no setpriv: if boincvm is killed, its virtual machine goes on"
        return Check("setpriv", Status.WARNING, detail, "apt-get install util-linux")
    return Check("setpriv", Status.OK, path)


def acceleration() -> list[Check]:
    """The verdict and, where it is emulation, what that means for safety."""
    from boincvm.hypervisor.qemu.acceleration import probe

    kernel = _kernel_of_an_image()
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


def _kernel_of_an_image() -> Path | None:
    from boincvm.image.store import ImageStore

    store = ImageStore()
    for name in store.names():
        try:
            with store.open_unverified(name) as image:
                return image.kernel
        except BoincvmError:
            continue  # damaged: `images` says so
    return None


def build_tools() -> Check:
    from boincvm.image.tools import check_host

    try:
        check_host(_existing(paths.data_directory()))
    except BoincvmError as error:
        detail = f"{error.message} (only building needs this)"
        return Check("image tools", Status.WARNING, detail, error.hint)
    return Check("image tools", Status.OK, "images can be built here")


def images() -> Check:
    from boincvm.image.store import ImageStore

    store, sound, damaged = ImageStore(), [], ""
    for name in store.names():
        try:
            store.open_unverified(name).close()
        except BoincvmError as error:
            damaged = error.message
        else:
            sound.append(name)
    if damaged:
        status = Status.WARNING if sound else Status.FAILED
        remedy = "build it again: boincvm image build"
        return Check("images", status, damaged, remedy, ExitCode.IMAGE_DAMAGED)
    if not sound:
        remedy = "boincvm image build base"
        return Check("images", Status.FAILED, "none yet", remedy, ExitCode.IMAGE_MISSING)
    return Check("images", Status.OK, ", ".join(sound))


def run_space() -> Check:
    return _space("room for runs", paths.runs_directory())


def image_space() -> Check:
    return _space("room for images", paths.data_directory())


def _space(name: str, directory: Path) -> Check:
    existing = _existing(directory)
    elsewhere = "set BOINCVM_HOME to a directory with room"
    if not os.access(existing, os.W_OK | os.X_OK):
        detail = f"{existing} cannot be written to"
        return Check(name, Status.FAILED, detail, elsewhere, ExitCode.HOST)
    free = shutil.disk_usage(existing).free
    detail = f"{format_size(free)} free at {directory}"
    if free < LEAST_DISK:
        return Check(name, Status.FAILED, detail, elsewhere, ExitCode.HOST_DISK_FULL)
    if free < COMFORTABLE_DISK:
        return Check(name, Status.WARNING, detail, elsewhere)
    return Check(name, Status.OK, detail)


def memory() -> Check:
    try:
        free = available_memory()
    except HostError:
        return Check("memory", Status.WARNING, "the kernel does not say how much is free")
    detail = f"{format_size(free)} available"
    if free < COMFORTABLE_MEMORY:
        remedy = "end other programs, or run with less: boincvm run --memory 256M"
        return Check("memory", Status.WARNING, detail, remedy)
    return Check("memory", Status.OK, detail)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _output_of(*argv: str) -> tuple[int, str]:
    """The exit status and all that the program prints; a fault to start it counts as -1."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PROGRAM_LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return -1, str(error)
    return done.returncode, done.stdout.decode(errors="replace")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else "it printed nothing"


ALL: tuple[tuple[str, Callable[[], Check | list[Check]]], ...] = (
    ("python", python),
    ("qemu", qemu),
    ("qemu-img", qemu_img),
    ("sandbox", sandbox),
    ("setpriv", setpriv),
    ("acceleration", acceleration),
    ("images", images),
    ("image tools", build_tools),
    ("room for runs", run_space),
    ("room for images", image_space),
    ("memory", memory),
)


def examine(name: str, function: Callable[[], Check | list[Check]]) -> list[Check]:
    """The findings of one check; one that cannot be made is a finding too."""
    try:
        found = function()
    except (BoincvmError, OSError) as error:
        hint = error.hint if isinstance(error, BoincvmError) else ""
        code = error.exit_code if isinstance(error, BoincvmError) else ExitCode.HOST
        return [Check(name, Status.FAILED, str(error), hint, code)]
    return found if isinstance(found, list) else [found]
