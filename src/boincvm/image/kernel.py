"""The kernel's package: the uncompressed kernel within vmlinuz, and the modules.

An uncompressed kernel boots 0.3 s faster under emulation, where decompression is slow. For x86-64
it is an ELF file, for arm64 an Image.
"""

import lzma
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from boincvm.errors import ImageBuildError
from boincvm.hypervisor.architecture import Architecture, head_architecture
from boincvm.image.tools import run_tool
from boincvm.image.unpack import files_of

_SETUP_SECTORS = 0x1F1
_HEADER_MAGIC = 0x202
_PAYLOAD = 0x248
"""Offsets in vmlinuz: the Linux/x86 boot protocol (Documentation/arch/x86/boot.rst), 2.08."""

_SIZE_TRAILER = 4
MODULE_FOLDERS = ("virtio", "block", "char", "net", "core", "overlayfs")
"""The folders that hold the modules that a machine needs, or one that builds containers."""
_MODULE = re.compile(r"(?:usr/)?lib/modules/([^/]+)/kernel/.*/([^/]+)\.ko(\.xz|\.zst|\.gz)?")


@dataclass(frozen=True, slots=True)
class KernelPackage:
    """The contents of a kernel package that an image uses."""

    release: str
    """As `uname -r` prints it."""
    image: bytes
    modules: Mapping[str, bytes]
    """The wanted modules and their dependencies, in loading order; names with underscores."""


def read_kernel(
    package: Path,
    wanted_modules: tuple[str, ...],
    folders: tuple[str, ...] = MODULE_FOLDERS,
    architecture: Architecture = Architecture.X86_64,
) -> KernelPackage:
    """Return the kernel in Debian's linux-image package, with modules that lie in `folders`.

    Raises ImageBuildError.
    """

    def is_selected(name: str) -> bool:
        if name.startswith("boot/vmlinuz-"):
            return True
        return _MODULE.fullmatch(name) is not None and PurePosixPath(name).parts[-2] in folders

    vmlinuz = b""
    release = ""
    modules: dict[str, bytes] = {}
    for name, member, content in files_of(package, is_selected):
        if content is None:
            continue
        match = _MODULE.fullmatch(name)
        if match is None:
            vmlinuz = content.read()
            release = name.partition("vmlinuz-")[2]
        elif member.size:
            modules[match[2].replace("-", "_")] = decompress(content.read())
    if not release:
        raise ImageBuildError(f"{package.name} contains no kernel")
    ordered = _in_order(wanted_modules, modules, package)
    extract = extract_image if architecture is Architecture.AARCH64 else extract_kernel
    return KernelPackage(release, extract(vmlinuz), ordered)


def _in_order(
    wanted: tuple[str, ...], modules: Mapping[str, bytes], package: Path
) -> dict[str, bytes]:
    """Order modules so that each follows its dependencies.

    A name that the package lacks is built into the kernel, or was renamed.
    """
    ordered: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in ordered:
            return
        module = modules.get(name)
        if module is None:
            raise ImageBuildError(f"{package.name} has no module {name}")
        for need in module_needs(module):
            add(need)
        ordered[name] = module

    for name in wanted:
        add(name)
    return ordered


def module_needs(module: bytes) -> list[str]:
    """Return the modules that a module's .modinfo lists as its dependencies."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    names = found[1].decode("ascii") if found is not None else ""
    return [name.replace("-", "_") for name in names.split(",") if name]


def extract_kernel(vmlinuz: bytes) -> bytes:
    """Extract the ELF file that a bzImage unpacks at boot. Raises ImageBuildError."""
    if vmlinuz[_HEADER_MAGIC : _HEADER_MAGIC + 4] != b"HdrS" or len(vmlinuz) < _PAYLOAD + 8:
        raise ImageBuildError("the kernel's file is not an x86 bzImage")
    offset, length = struct.unpack_from("<II", vmlinuz, _PAYLOAD)
    start = ((vmlinuz[_SETUP_SECTORS] or 4) + 1) * 512 + offset
    kernel = decompress(vmlinuz[start : start + length], _SIZE_TRAILER)
    if not kernel.startswith(b"\x7fELF"):
        raise ImageBuildError("the kernel's payload is not an ELF file")
    return kernel


def extract_image(vmlinuz: bytes) -> bytes:
    """Return the Image that an arm64 kernel's file is, or holds. Raises ImageBuildError."""
    kernel = decompress(vmlinuz)
    if head_architecture(kernel) is not Architecture.AARCH64 or kernel.startswith(b"\x7fELF"):
        raise ImageBuildError("the kernel's file is not an arm64 Image")
    return kernel


def decompress(content: bytes, trailer: int = 0) -> bytes:
    """Unpack gzip, xz, zstd or lz4; anything else is returned as it is.

    trailer: bytes after the compressed data that the kernel's build appends.
    Raises ImageBuildError.
    """
    end = len(content) - trailer
    try:
        if content.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(content)
        if content.startswith(b"\xfd7zXZ\0"):
            return lzma.LZMADecompressor().decompress(content)
    except (zlib.error, lzma.LZMAError) as error:
        raise ImageBuildError(f"the kernel's package is damaged: {error}") from error
    if content.startswith(b"\x28\xb5\x2f\xfd"):
        return run_tool(["zstd", "-dcq"], stdin=content[:end])
    if content.startswith(b"\x02\x21\x4c\x18"):
        return run_tool(["lz4", "-dcq"], stdin=content[:end])
    return content
