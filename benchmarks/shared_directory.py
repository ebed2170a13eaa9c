"""A file to the guest and back through a directory that the guest shares with the host.

By 9p, which needs no root, and by virtiofs, whose daemon needs it. The kernel of our images has no
9p, so this machine boots Debian's usual kernel of the same version, with the same QEMU, root disk,
memory and processor. None of our software runs in it: its shell mounts the directory and copies.
"""

import asyncio
import re
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from benchmarks.bare_machine import LIMIT, MEMORY, BareMachine, GuestSystem, bare_machine
from boincvm.host.processes import ChildProcess
from boincvm.host.users import is_root
from boincvm.image import initrd
from boincvm.image.agent_files import init_script
from boincvm.image.kernel import MODULE_FOLDERS, read_kernel
from boincvm.image.packages import fetch_packages
from boincvm.image.progress import Progress
from boincvm.image.store import Image
from boincvm.image.unpack import files_of

NINE_P, VIRTIOFS = "9p", "virtiofs"
_TAG = "share"
_PACKAGES = ("linux-image-amd64", "busybox-static")
_KERNEL = re.compile(r"linux-image-\d.*-amd64_.*\.deb")
_MODULES = ("crc32c_generic", "ext4", "9p", "9pnet_virtio", "virtiofs")
_FOLDERS = ("9p", "crypto", "ext4", "fs", "fscache", "fuse", "jbd2", "lib", "netfs")
_DAEMONS = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd")

MOUNT_OPTIONS = {
    NINE_P: "-t 9p -o trans=virtio,version=9p2000.L,cache=none,msize=512000",
    VIRTIOFS: "-t virtiofs",
}
"""The fastest of 9p's ways for one large file: without a cache each read or write of `cp` is one
message. With `cache=loose` the guest's kernel writes page by page, and 256 MiB out take 14 to 18 s
in place of 1; in they take 2.6 to 5 s in place of 2. 500 KiB is the largest message of virtio."""
_PUT = "cp /run/share/source /there"
_GET = "cp /there /run/share/back; umount /run/share"
"""Unmounts the directory too, because only then does the host have the whole file."""


@dataclass(frozen=True, slots=True)
class SharingKernel:
    """A kernel and an initrd with which a guest can mount a directory of the host."""

    kernel: Path
    initrd: Path


def sharing_kernel(image: Image, scratch: Path) -> SharingKernel:
    """Make them from Debian's packages, which are fetched. Raises ImageBuildError."""
    suite = image.manifest.recipe.suite
    packages = fetch_packages(_PACKAGES, suite, None, scratch, Progress(None))
    (package,) = [path for path in packages if _KERNEL.fullmatch(path.name)]
    (tools,) = [path for path in packages if path.name.startswith("busybox-static_")]
    wanted = (*_MODULES, *initrd.wanted_modules())
    kernel = read_kernel(package, wanted, (*MODULE_FOLDERS, *_FOLDERS))
    (busybox,) = [
        content.read()
        for _, _, content in files_of(tools, lambda name: name.endswith("bin/busybox"))
        if content is not None
    ]
    made = SharingKernel(scratch / "sharing-kernel", scratch / "sharing-initrd")
    made.kernel.write_bytes(kernel.image)
    made.initrd.write_bytes(initrd.build_initrd(init_script(), busybox, kernel))
    return made


def virtiofs_daemon() -> str | None:
    """Return the path of virtiofsd, or None if it is not installed or we may not start it."""
    if not is_root():
        return None
    found = [name for name in _DAEMONS if Path(name).exists()]
    return found[0] if found else shutil.which("virtiofsd")


def share_seconds(
    image: Image, accelerator: str, scratch: Path, system: SharingKernel, kind: str, share: Path
) -> tuple[float, float]:
    """Measure copying a file to the guest's disk and back through a shared directory, in seconds.

    The file is `source` in the host's directory `share`, and comes back as `back` beside it;
    `kind`: NINE_P or VIRTIOFS. In between the guest flushes its disk writes and drops its caches.
    """
    shell = "; ".join(
        (
            "set -- /dev/vport*p1",
            "exec 3<>$1",
            "mkdir -p /run/share",
            f"busybox mount {MOUNT_OPTIONS[kind]} {_TAG} /run/share",
            "echo >&3",
            "read line <&3",
            _PUT,
            "echo >&3",
            "sync",
            "echo 3 >/proc/sys/vm/drop_caches",
            "echo >&3",
            "read line <&3",
            _GET,
            "echo >&3",
            "read line <&3",
        )
    )

    async def measure() -> tuple[float, float]:
        daemon = _daemon(share, scratch) if kind == VIRTIOFS else nullcontext(_nine_p(share))
        async with daemon as devices:
            bare = GuestSystem(system.kernel, system.initrd, devices)
            async with bare_machine(image, accelerator, shell, scratch, bare) as machine:
                return await asyncio.to_thread(_both_ways, machine)

    return asyncio.run(measure())


def _both_ways(machine: BareMachine) -> tuple[float, float]:
    port = machine.port

    def wait() -> None:
        if not port.recv(1):
            raise EOFError("the machine ended in the middle of the transfer")

    def timed() -> float:
        begin = perf_counter()
        port.sendall(b"\n")
        wait()
        return perf_counter() - begin

    wait()  # the directory is mounted
    put = timed()
    wait()  # it is on the guest's disk
    return put, timed()


def _nine_p(share: Path) -> tuple[str, ...]:
    return (
        "-fsdev", f"local,id=share,path={share},security_model=none",
        "-device", f"virtio-9p-pci,fsdev=share,mount_tag={_TAG}",
    )  # fmt: skip


@asynccontextmanager
async def _daemon(share: Path, scratch: Path) -> AsyncIterator[tuple[str, ...]]:
    """Run virtiofsd for a directory within the block; yield QEMU's options for it."""
    program = virtiofs_daemon()
    if program is None:
        raise FileNotFoundError("virtiofsd")
    with tempfile.TemporaryDirectory(prefix="fs-", dir=scratch) as name:
        path = Path(name) / "socket"
        with (
            socket.socket(socket.AF_UNIX) as listener,
            (Path(name) / "log").open("wb") as log,
        ):
            listener.bind(str(path))
            listener.listen()
            process = ChildProcess(
                [
                    *(program, f"--fd={listener.fileno()}"),
                    *("-o", f"source={share}", "-o", "cache=always", "-o", "sandbox=chroot"),
                ],
                directory=Path(name),
                descriptors=[listener.fileno()],
                stderr=log.fileno(),
            )
        try:
            yield (
                "-object", f"memory-backend-memfd,id=shared,size={MEMORY},share=on",
                "-numa", "node,memdev=shared",
                "-chardev", f"socket,id=fs,path={path}",
                "-device", f"vhost-user-fs-pci,chardev=fs,tag={_TAG}",
            )  # fmt: skip
        finally:
            process.kill()
            async with asyncio.timeout(LIMIT):
                await process.wait()
