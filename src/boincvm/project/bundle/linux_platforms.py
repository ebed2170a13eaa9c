"""The kinds of Linux hosts that there are folders for, and what differs between them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinuxPlatform:
    """A processor architecture of Linux."""

    name: str
    """BOINC's name of the platform."""
    architecture: str
    """Debian's name of the architecture."""
    libraries: str
    """The directory of its libraries in Debian, beneath /lib and /usr/lib."""
    loader: str
    """The name of glibc's dynamic loader."""
    compiler: str
    """The program that compiles for it, on x86_64."""
    qemu: str
    """QEMU's program for machines of this architecture."""
    qemu_modules: tuple[str, ...]
    """The parts of QEMU that it loads by itself, and machines of ours need."""
    firmware: tuple[str, ...]
    """What machines of ours start with, beneath /usr/share."""


_KEYMAP = "qemu/keymaps/en-us"
"""What VNC asks for."""
X86_64 = LinuxPlatform(
    name="x86_64-pc-linux-gnu",
    architecture="amd64",
    libraries="x86_64-linux-gnu",
    loader="ld-linux-x86-64.so.2",
    compiler="musl-gcc",
    qemu="qemu-system-x86_64",
    qemu_modules=("accel-tcg-x86_64.so",),
    firmware=(
        "seabios/bios-256k.bin",
        "seabios/vgabios-stdvga.bin",
        "qemu/kvmvapic.bin",
        "qemu/linuxboot_dma.bin",
        "qemu/pvh.bin",
        _KEYMAP,
    ),
)
AARCH64 = LinuxPlatform(
    name="aarch64-unknown-linux-gnu",
    architecture="arm64",
    libraries="aarch64-linux-gnu",
    loader="ld-linux-aarch64.so.1",
    compiler="aarch64-linux-gnu-gcc",
    qemu="qemu-system-aarch64",
    qemu_modules=(),
    firmware=(_KEYMAP,),
)
