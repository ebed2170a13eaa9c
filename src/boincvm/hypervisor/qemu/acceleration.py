"""The acceleration probe, which boots a kernel instead of looking for KVM.

`/dev/kvm` can open and still hang a guest. So the image's own kernel is booted under KVM with an
initrd of one tiny program, which reports through a port that makes QEMU exit with a unique status.
The verdict is cached per boot of the host, user and QEMU.
"""

import json
import os
import struct
from pathlib import Path
from time import monotonic
from typing import BinaryIO, NamedTuple

from boincvm.host.own_files import make_directory, open_own
from boincvm.host.processes import ChildProcess
from boincvm.host.resources import boot_id
from boincvm.host.users import user_id
from boincvm.hypervisor.architecture import Architecture, kernel_architecture
from boincvm.hypervisor.qemu import command as qemu_command
from boincvm.hypervisor.qemu.target import TARGETS
from boincvm.paths import cache_directory

LIMIT = 2.5
"""Seconds that the trial boot may take; working hardware needs a fifth of that."""

KVM = Path("/dev/kvm")
_MOST_BYTES = 1 << 16
_EXIT_PORT = 0xF4
_SENT = 0x2A
REPORTED = _SENT << 1 | 1
"""QEMU's exit status, which isa-debug-exit makes of the byte."""


class Verdict(NamedTuple):
    """The result of the acceleration probe."""

    accelerator: str
    """One of "kvm" and "tcg" (emulation)."""
    reason: str
    """One line for people."""
    seconds: float
    """How long the probe took."""
    cached: bool = False


def known_verdict(kernel: Path) -> Verdict | None:
    """Return what `probe` would, or None if that needs a trial. Raises HypervisorMissingError."""
    foreign = _why_emulated(kernel_architecture(kernel))
    if foreign:
        return Verdict("tcg", foreign, 0.0)
    key = _key()
    missing = _why_not_even_tried(kernel)
    return Verdict("tcg", missing, 0.0) if missing else _load(_cache(), key)


async def probe(kernel: Path | None, *, refresh: bool = False) -> Verdict:
    """Find out what works here, within 3 seconds; `kernel` is None if there is no image yet.

    Raises HypervisorMissingError.
    """
    foreign = _why_emulated(kernel_architecture(kernel))
    if foreign:
        return Verdict("tcg", foreign, 0.0)
    cache, key = _cache(), _key()
    missing = _why_not_even_tried(kernel)
    if missing or kernel is None:
        return Verdict("tcg", missing, 0.0)
    known = None if refresh else _load(cache, key)
    if known is not None:
        return known
    begin = monotonic()
    failure = await _try_kvm(kernel)
    verdict = Verdict(
        "tcg" if failure else "kvm",
        failure or "a kernel booted under KVM",
        round(monotonic() - begin, 3),
    )
    _store(cache, key, verdict)
    return verdict


def _why_emulated(architecture: Architecture) -> str:
    """Return why machines of that architecture are emulated on any host, or ""."""
    if architecture is Architecture.X86_64:
        return ""
    qemu_command.find_program(TARGETS[architecture].program)
    return f"machines for {architecture.value} are emulated; KVM is only used for x86-64"


def _why_not_even_tried(kernel: Path | None) -> str:
    if not KVM.exists():
        return "this host has no /dev/kvm (no hardware virtualization, or it is off in the BIOS)"
    if not os.access(KVM, os.R_OK | os.W_OK):
        return "/dev/kvm exists, but this user may not open it: join its group, usually kvm"
    if kernel is None:
        return "KVM was not tried: that needs the kernel of an image"
    return ""


def acceleration_remedy(kernel: Path | None) -> str:
    """Return what to do where KVM does not work."""
    from boincvm.host.virtualization import kvm_remedy  # only people ask

    remedy = kvm_remedy()
    if remedy:
        return remedy
    if kernel is None:
        return "boincvm image build base; then boincvm doctor tries KVM"
    return "nothing to do here: jobs run, only slower; a host whose KVM works is faster"


async def _try_kvm(kernel: Path) -> str:
    """Return why KVM does not work, or "" if it does."""
    from boincvm.host import memory_files  # a trial is rare

    # Neither is on a disk: nothing is left of a trial whose process is killed.
    with _in_memory("initrd", probe_initrd()) as initrd, _in_memory("log", b"") as log:
        process = ChildProcess(
            trial_command("kvm", kernel, memory_files.path_of(initrd.fileno())),
            directory=Path("/"),
            descriptors=[initrd.fileno()],
            stderr=log,
        )
        import asyncio  # a trial is rare, and the import slow

        try:
            async with asyncio.timeout(LIMIT):
                status = await process.wait()
        except TimeoutError:
            return f"/dev/kvm opens, but a kernel did not boot under it within {LIMIT} s"
        finally:
            process.kill()
            await process.wait()
        if status == REPORTED:
            return ""
        from boincvm.redaction import redact  # only needed where KVM does not work

        log.seek(0)
        lines = redact(os.fsdecode(log.read())).strip().splitlines()
    line = "".join(filter(str.isprintable, lines[0])) if lines else ""
    detail = line[:200] if line else f"QEMU ended with status {status}"
    return f"/dev/kvm opens, but a kernel does not boot under it: {detail}"


def _in_memory(name: str, content: bytes) -> BinaryIO:
    from boincvm.host import memory_files

    file = os.fdopen(memory_files.create(name), "w+b")
    file.write(content)
    file.flush()
    return file


def trial_command(accelerator: str, kernel: Path, initrd: str) -> list[str]:
    """Return a QEMU command that exits with REPORTED if `kernel` runs the program in `initrd`.

    `initrd` is the file with the content of `probe_initrd()`.
    """
    return [
        qemu_command.find_program(qemu_command.PROGRAM),
        *qemu_command.base_options(accelerator),
        "-m", "128M",
        "-kernel", str(kernel),
        "-initrd", initrd,
        "-append", " ".join(qemu_command.KERNEL_ARGUMENTS),
        "-device", f"isa-debug-exit,iobase={_EXIT_PORT:#x},iosize=4",
    ]  # fmt: skip


def probe_initrd() -> bytes:
    """Return a cpio archive ("newc") whose /init writes one byte to the exit port.

    x86-64: iopl(3); out 0xf4, al; then pause forever. ELF: one segment, loaded at 4 MiB.
    """
    code = (
        b"\xbf\x03\x00\x00\x00"  # mov edi, 3
        b"\xb8\xac\x00\x00\x00"  # mov eax, 172 (iopl)
        b"\x0f\x05"  # syscall
        + bytes([0xB0, _SENT, 0xE6, _EXIT_PORT])  # mov al, …; out …, al
        + b"\xeb\xfe"  # jmp to itself
    )
    base, head = 0x400000, 64 + 56
    size = head + len(code)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    elf = identity + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, base + head, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return _cpio("init", 0o100755, elf + segment + code) + _cpio("TRAILER!!!", 0, b"")


def _cpio(name: str, mode: int, data: bytes) -> bytes:
    fields = [1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def _cache() -> Path:
    return cache_directory() / "acceleration.json"


def _key() -> str:
    """Return what the verdict depends on.

    The kernel is left out, or two images used in turn would cost a trial boot each time.
    """
    program = qemu_command.find_program(qemu_command.PROGRAM)
    stamp = f"{program}:{Path(program).stat().st_mtime_ns}"
    return "|".join([boot_id(), user_id(), stamp])


def _load(cache: Path, key: str) -> Verdict | None:
    try:
        with open_own(cache) as file:
            stored = json.loads(file.read(_MOST_BYTES))
        if stored["key"] != key:
            return None
        return Verdict(**stored["verdict"])._replace(cached=True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # not ours, or of another version


def _store(cache: Path, key: str, verdict: Verdict) -> None:
    make_directory(cache.parent)
    part = cache.with_suffix(f".{os.getpid()}")
    try:
        part.touch(mode=0o600)  # whatever the umask
        part.write_text(json.dumps({"key": key, "verdict": verdict._asdict()}))
        part.replace(cache)
    finally:
        part.unlink(missing_ok=True)
