"""The acceleration probe with a stand-in for QEMU: HVF and WHPX, which no machine here has."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from boincvm.host import virtualization_unsupported
from boincvm.hypervisor import qemu_options
from boincvm.hypervisor.qemu import acceleration
from boincvm.hypervisor.qemu.command import acceleration_options, base_options
from boincvm.hypervisor.qemu.target import AARCH64, X86_64
from boincvm.hypervisor.qemu.trial import has_run, trial_command, trial_initrd

STATUS = 85
"""QEMU's exit status when the program in the trial's guest has written its byte."""
WORD = "boincvm: this kernel runs programs"
KERNELS = {"x86_64": b"\x7fELF".ljust(18, b"\0") + b"\x3e\0", "aarch64": bytes(56) + b"ARM\x64"}

Host = Callable[[str, str], Path]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Make this host one with that accelerator and processor; return the kernel of an image."""

    def make(accelerator: str, processor: str) -> Path:
        monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(acceleration, "ACCELERATOR", accelerator)
        monkeypatch.setattr(acceleration, "_NAME", accelerator.upper())
        monkeypatch.setattr(acceleration, "LIMIT", 60.0)  # a busy host delays any program
        monkeypatch.setattr(acceleration, "accelerator_obstacle", lambda: "")
        monkeypatch.setattr(acceleration, "processor_architecture", lambda: processor)
        monkeypatch.setattr(qemu_options, "HAS_SECCOMP", accelerator == "kvm")
        kernel = tmp_path / "kernel"
        kernel.write_bytes(KERNELS[processor].ljust(64, b"\0"))
        return kernel

    return make


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a QEMU on PATH that does what the script says; its words are in the file returned."""

    def install(script: str) -> Path:
        programs, words = tmp_path / "programs", tmp_path / "words"
        programs.mkdir()
        for target in (X86_64, AARCH64):
            program = programs / target.program
            program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{words}\n{script}\n')
            program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
        return words

    return install


@pytest.mark.parametrize(
    ("accelerator", "processor", "script", "cpu"),
    [
        ("hvf", "x86_64", f"exit {STATUS}", "host"),
        ("hvf", "aarch64", f"echo {WORD}", "host"),
        ("whpx", "x86_64", f"exit {STATUS}", "qemu64"),
        ("kvm", "aarch64", f"echo {WORD}", "host"),
    ],
)
async def test_a_kernel_that_boots(
    host: Host,
    qemu: Callable[[str], Path],
    accelerator: str,
    processor: str,
    script: str,
    cpu: str,
) -> None:
    kernel, words = host(accelerator, processor), qemu(script)
    verdict = await acceleration.probe(kernel)
    assert verdict.accelerator == accelerator, verdict
    unproved = accelerator != "kvm"
    assert ("nobody has tried boincvm" in verdict.reason) is unproved
    text = words.read_text().split("\n")
    assert text[text.index("-accel") + 1] == accelerator
    assert text[text.index("-cpu") + 1] == cpu
    assert ("-sandbox" in text) is not unproved  # which these builds of QEMU do not know
    assert acceleration.known_verdict(kernel) == verdict._replace(cached=True)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'invalid accelerator hvf' >&2; exit 1", "does not boot under it: invalid accel"),
        ("exit 0", "QEMU ended with status 0"),
        (f"echo {WORD}; exit 1", "does not boot under it"),
    ],
)
async def test_one_that_does_not(
    host: Host, qemu: Callable[[str], Path], script: str, why: str
) -> None:
    qemu(script)
    verdict = await acceleration.probe(host("hvf", "aarch64"))
    assert verdict.accelerator == "tcg"
    assert "HVF is available, but" in verdict.reason
    assert why in verdict.reason


async def test_a_trial_that_took_too_long_is_repeated(
    host: Host, qemu: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host may only have been busy."""
    now = 1e9
    monkeypatch.setattr(acceleration, "time", lambda: now)
    kernel, words = host("hvf", "aarch64"), qemu("exec sleep 1000")
    monkeypatch.setattr(acceleration, "LIMIT", 0.05)
    for pause in (600, 3600, 21_600, 86_400, 86_400):
        verdict = await acceleration.probe(kernel)
        assert (verdict.accelerator, verdict.cached) == ("tcg", False)
        assert "did not boot under it within" in verdict.reason
        assert verdict.valid_until == now + pause
        now += pause - 1
        assert (await acceleration.probe(kernel)).cached
        assert acceleration.known_verdict(kernel) is not None
        now += 1
        assert acceleration.known_verdict(kernel) is None
    monkeypatch.setattr(acceleration, "LIMIT", 60.0)
    words.with_name("programs").joinpath(AARCH64.program).write_text(f"#!/bin/sh\necho {WORD}\n")
    verdict = await acceleration.probe(kernel)
    assert (verdict.accelerator, verdict.late) == ("hvf", 0)
    now += 1e6
    assert (await acceleration.probe(kernel)).cached


@pytest.mark.parametrize(
    ("accelerator", "processor", "kernel", "why"),
    [
        ("kvm", "aarch64", "x86_64", "the processor of this host is for aarch64"),
        ("hvf", "x86_64", "aarch64", "the processor of this host is for x86_64"),
        ("whpx", "aarch64", "aarch64", "WHPX is not used for them"),
    ],
)
async def test_what_is_not_even_tried(
    host: Host,
    qemu: Callable[[str], Path],
    accelerator: str,
    processor: str,
    kernel: str,
    why: str,
) -> None:
    words, path = qemu(f"exit {STATUS}"), host(accelerator, processor)
    path.write_bytes(KERNELS[kernel].ljust(64, b"\0"))
    verdict = await acceleration.probe(path)
    assert verdict.accelerator == "tcg"
    assert why in verdict.reason
    assert acceleration.known_verdict(path) == verdict
    assert not words.exists()


def test_the_systems_own_accelerators() -> None:
    assert acceleration_options("hvf")[:2] == ["-accel", "hvf"]
    assert acceleration_options("kvm", target=AARCH64) == ["-accel", "kvm", "-cpu", "host"]
    assert "virt,gic-version=3" in base_options("kvm", target=AARCH64)


@pytest.mark.parametrize(
    ("platform", "remedy"), [("darwin", ""), ("win32", "/FeatureName:HypervisorPlatform")]
)
def test_what_turns_it_on(monkeypatch: pytest.MonkeyPatch, platform: str, remedy: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    text = virtualization_unsupported.accelerator_remedy()
    assert remedy in text
    assert bool(text) is bool(remedy)


def test_a_trial_is_as_each_machine_is(tmp_path: Path) -> None:
    command = trial_command("tcg", tmp_path / "kernel", "/initrd", X86_64)
    assert set(base_options("tcg")) <= set(command)
    assert trial_initrd(X86_64) != trial_initrd(AARCH64)
    assert has_run(STATUS, b"", X86_64)
    assert not has_run(0, WORD.encode(), X86_64)
