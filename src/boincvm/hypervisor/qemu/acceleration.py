"""The acceleration probe, which boots a kernel instead of looking for the host's accelerator.

Which accelerator a system has, `host.virtualization` says: KVM on Linux, HVF on macOS, WHPX on
Windows; only KVM was ever tried. `/dev/kvm` can open and still hang a guest. So the image's own
kernel is booted under it with an initrd of one tiny program, which says that it runs (trial.py).
The verdict is cached per boot of the host, user and QEMU. That a trial took too long may be because
the host was busy, so it is repeated, after a time that becomes longer with each that took too long.
"""

import json
import os
from pathlib import Path
from time import monotonic, time
from typing import NamedTuple

from boincvm.host.own_files import make_directory, open_own
from boincvm.host.processes import ChildProcess
from boincvm.host.resources import boot_id, processor_architecture
from boincvm.host.users import user_id
from boincvm.host.virtualization import ACCELERATOR, accelerator_obstacle, accelerator_remedy
from boincvm.hypervisor.architecture import kernel_architecture
from boincvm.hypervisor.qemu import command as qemu_command
from boincvm.hypervisor.qemu.target import TARGETS, Target
from boincvm.paths import cache_directory

LIMIT = 2.5
"""Seconds that the trial boot may take; working hardware needs a fifth of that."""

FIRST_PAUSE = 600.0
"""Seconds until a trial that took too long is repeated; the next pauses are 6 times longer each."""
_LONGEST_PAUSE = 86_400.0

_NAME = ACCELERATOR.upper()
_UNPROVED = ("hvf", "whpx")
"""Accelerators that nobody has tried boincvm with."""
_MOST_BYTES = 1 << 16


class Verdict(NamedTuple):
    """The result of the acceleration probe."""

    accelerator: str
    """One of "kvm", "hvf", "whpx" and "tcg" (emulation)."""
    reason: str
    """One line for people."""
    seconds: float
    """How long the probe took."""
    cached: bool = False
    late: int = 0
    """So many trials, one after the other, took too long."""
    valid_until: float = 0.0
    """When the trial is repeated, in seconds since 1970; 0 for never."""


class _LateError(Exception):
    """A trial took too long."""


def known_verdict(kernel: Path) -> Verdict | None:
    """Return what `probe` would, or None if that needs a trial. Raises HypervisorMissingError."""
    target = TARGETS[kernel_architecture(kernel)]
    key = _key(target)
    obstacle = _why_not_even_tried(kernel, target)
    return Verdict("tcg", obstacle, 0.0) if obstacle else _load(_cache(), key)


async def probe(kernel: Path | None, *, refresh: bool = False) -> Verdict:
    """Find out what works here, within 3 seconds; `kernel` is None if there is no image yet.

    Raises HypervisorMissingError.
    """
    target = TARGETS[kernel_architecture(kernel)]
    cache, key = _cache(), _key(target)
    obstacle = _why_not_even_tried(kernel, target)
    if obstacle or kernel is None:
        return Verdict("tcg", obstacle, 0.0)
    former = _load(cache, key, is_valid=False)
    if former is not None and not refresh and _is_valid(former):
        return former
    begin, late = monotonic(), 0
    try:
        failure = await _try_accelerator(kernel, target)
    except _LateError as error:
        failure, late = str(error), (former.late if former is not None else 0) + 1
    verdict = Verdict(
        "tcg" if failure else ACCELERATOR,
        failure or f"a kernel booted under {_NAME}{_with_boincvm()}",
        round(monotonic() - begin, 3),
        late=late,
        valid_until=time() + _pause(late) if late else 0.0,
    )
    _store(cache, key, verdict)
    return verdict


def _pause(late: int) -> float:
    return min(FIRST_PAUSE * 6.0 ** min(late - 1, 9), _LONGEST_PAUSE)


def _is_valid(verdict: Verdict) -> bool:
    """Tell whether a stored verdict counts now; the clock may have been set back since."""
    return verdict.valid_until == 0 or 0 < verdict.valid_until - time() <= _LONGEST_PAUSE


def _with_boincvm() -> str:
    return ", with which nobody has tried boincvm yet" if ACCELERATOR in _UNPROVED else ""


def _why_not_even_tried(kernel: Path | None, target: Target) -> str:
    """Return why machines of that target are emulated here without a trial, or ""."""
    here, theirs = processor_architecture(), target.architecture.value
    if here != theirs:
        return f"machines for {theirs} are emulated: the processor of this host is for {here}"
    obstacle = accelerator_obstacle()
    if obstacle:
        return obstacle
    if ACCELERATOR not in target.cpus:
        return f"machines for {theirs} are emulated: {_NAME} is not used for them"
    if kernel is None:
        return f"{_NAME} was not tried: that needs the kernel of an image"
    return ""


def acceleration_remedy(kernel: Path | None) -> str:
    """Return what to do where the accelerator does not work."""
    remedy = accelerator_remedy()
    if remedy:
        return remedy
    if kernel is None:
        return f"boincvm image build base; then boincvm doctor tries {_NAME}"
    return f"nothing to do here: jobs run, only slower; a host whose {_NAME} works is faster"


async def _try_accelerator(kernel: Path, target: Target) -> str:
    """Return why the accelerator does not work, or "" if it does. Raises _LateError."""
    # A trial is rare.
    from boincvm.host import memory_files
    from boincvm.hypervisor.qemu.trial import has_run, trial_command, trial_initrd

    # Neither is on a disk where the system has files in memory: nothing is left of a trial whose
    # process is killed.
    with (
        memory_files.for_child("initrd", trial_initrd(target)) as (path, descriptors),
        os.fdopen(memory_files.create("log"), "w+b") as log,
    ):
        process = ChildProcess(
            trial_command(ACCELERATOR, kernel, path, target),
            directory=Path("/"),
            descriptors=descriptors,
            stdout=log.fileno(),
            stderr=log,
        )
        import asyncio  # a trial is rare, and the import slow

        try:
            async with asyncio.timeout(LIMIT):
                status = await process.wait()
        except TimeoutError:
            raise _LateError(
                f"{_NAME} is available, but a kernel did not boot under it within {LIMIT} s"
            ) from None
        finally:
            process.kill()
            await process.wait()
        log.seek(0)
        output = log.read(_MOST_BYTES)
    if has_run(status, output, target):
        return ""
    from boincvm.redaction import redact_output  # only needed where it does not work

    lines = redact_output(output).strip().splitlines()
    line = "".join(filter(str.isprintable, lines[0])) if lines else ""
    detail = line[:200] if line else f"QEMU ended with status {status}"
    return f"{_NAME} is available, but a kernel does not boot under it: {detail}"


def _cache() -> Path:
    return cache_directory() / "acceleration.json"


def _key(target: Target) -> str:
    """Return what the verdict depends on. Raises HypervisorMissingError.

    The kernel is left out, or two images used in turn would cost a trial boot each time.
    """
    program = qemu_command.find_program(target.program)
    stamp = f"{program}:{Path(program).stat().st_mtime_ns}"
    return "|".join([boot_id(), user_id(), stamp])


def _load(cache: Path, key: str, *, is_valid: bool = True) -> Verdict | None:
    """Return the verdict for `key`, or None if there is none, or no valid one with `is_valid`."""
    try:
        with open_own(cache) as file:
            stored = json.loads(file.read(_MOST_BYTES))
        if stored["key"] != key:
            return None
        verdict = Verdict(**stored["verdict"])._replace(cached=True)
        return verdict if not is_valid or _is_valid(verdict) else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # not ours, or of another version


def _store(cache: Path, key: str, verdict: Verdict) -> None:
    from boincvm.host.atomic_files import replacement  # once per boot of the host

    make_directory(cache.parent)
    with replacement(cache, is_unique=True, is_synced=False) as part:
        part.touch(mode=0o600)  # whatever the umask
        part.write_text(json.dumps({"key": key, "verdict": verdict._asdict()}))
