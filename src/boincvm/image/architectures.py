"""The architectures that images are built for, by Debian's names for them."""

from dataclasses import dataclass

from boincvm.hypervisor.architecture import Architecture


@dataclass(frozen=True, slots=True)
class ImageArchitecture:
    """What depends on the architecture of an image."""

    name: str
    """Debian's name."""
    machine: Architecture
    """What its machines are."""
    kernel_package: str
    emulator: tuple[str, str]
    """QEMU's program that runs its machines, and the package of the program."""


AMD64 = ImageArchitecture(
    "amd64",
    Architecture.X86_64,
    "linux-image-cloud-amd64",
    ("qemu-system-x86_64", "qemu-system-x86"),
)
ARM64 = ImageArchitecture(
    "arm64",
    Architecture.AARCH64,
    "linux-image-cloud-arm64",
    ("qemu-system-aarch64", "qemu-system-arm"),
)
ARCHITECTURES = {architecture.name: architecture for architecture in (AMD64, ARM64)}
"""By name, the default one first."""
HOST = AMD64
"""The architecture of computers that build images (tools.check_host)."""
