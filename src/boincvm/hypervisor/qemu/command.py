"""QEMU's command line for a machine, with no device, port or file that the machine does not need.

Paths are given in JSON with the format of each file: nothing is probed, and a comma, colon or
equals sign in a name has no meaning to QEMU.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.errors import HypervisorMissingError
from boincvm.host import programs
from boincvm.hypervisor.disks import TRANSFER_DISK
from boincvm.hypervisor.machine_spec import DISPLAY_SOCKET, MachineSpec
from boincvm.hypervisor.qemu.launch import Launch, Memory
from boincvm.hypervisor.qemu.target import TARGETS, X86_64, Target
from boincvm.hypervisor.qemu_options import ADDRESSES, common_options, user_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from boincvm.job.model import PortForward

INSTALL_HINT = X86_64.install_hint
PORT_NAME = "boincvm.agent"
TRANSFER_DISK_SERIAL = "boincvm-transfer"
NETWORK_CARD = "network-card"
MEMORY = "memory"
IMAGE_NODE = "image"
ROOT_EXPORT = "root"
"""The name of a root disk that QEMU reads from a socket."""
# Memory that the guest frees is given to the host automatically, and a guest that is about to
# kill a program for lack of memory takes back what it has given.
BALLOON = "balloon"
_FIRMWARE_DIRECTORIES = ("share/qemu", "share")
_FIRMWARE, _KERNEL_LOADER = "bios-256k.bin", "pvh.bin"
"""What a PC starts with, and what then starts an uncompressed kernel."""
_GPU_PORT = "gpu-port"
_SCREEN = "VGA,vgamem_mb=8"
_BALLOON_DEVICE = f"virtio-balloon-pci,id={BALLOON},free-page-reporting=on,deflate-on-oom=on"

PROGRAM, CPUS, KERNEL_ARGUMENTS = X86_64.program, X86_64.cpus, X86_64.kernel_arguments
"""Those of machines for x86-64."""


def find_program(name: str) -> str:
    """Return the path of QEMU's program `name`. Raises HypervisorMissingError."""
    path = programs.find_program(name)
    if path is None:
        hints = {target.program: target.install_hint for target in TARGETS.values()}
        raise HypervisorMissingError(f"{name} is not installed", hint=hints.get(name, INSTALL_HINT))
    return path


def begin_command(target: Target) -> list[str]:
    """Return QEMU's program, and where its firmware is if that lies beside it.

    So it is in archives of QEMU that are only unpacked, such as those for Windows. Raises
    HypervisorMissingError.
    """
    program = find_program(target.program)
    for name in _FIRMWARE_DIRECTORIES:
        directory = Path(program).parent / name
        if not (directory / _FIRMWARE).exists():
            continue
        if not (directory / _KERNEL_LOADER).exists():
            # QEMU would look for a disk to boot, for ever.
            raise HypervisorMissingError(
                f"{_KERNEL_LOADER}, a part of QEMU, is missing in {directory}",
                hint="copy it there from any other QEMU, of version 4.0 or newer",
            )
        return [program, "-L", str(directory)]
    return [program]


def acceleration_options(accelerator: str, cpu: str = "", target: Target = X86_64) -> list[str]:
    """Return the options for an accelerator, or "tcg" (emulation).

    `cpu` overrides the target's usual CPU.
    """
    how = "tcg,thread=multi,tb-size=256" if accelerator == "tcg" else accelerator
    return ["-accel", how, "-cpu", cpu or target.cpus[accelerator]]


def base_options(
    accelerator: str, machine: str = "", options: str = "", cpu: str = "", target: Target = X86_64
) -> list[str]:
    """Return the options that each of our QEMU processes is started with.

    The target's usual ones take the place of those that are empty.
    """
    return [
        *common_options(),
        "-machine", f"{machine or target.machine},{options or target.options}",
        *acceleration_options(accelerator, cpu, target),
    ]  # fmt: skip


def machine_command(
    spec: MachineSpec,
    accelerator: str,
    launch: Launch,
    *,
    qmp: str,
    link: str,
    console: str,
    root: int | None = None,
) -> list[str]:
    """Return the whole command line.

    `qmp`, `link` and `console` are what connects QEMU to our sockets (host/child_sockets.py);
    `root` is the descriptor of the one from which it reads its root disk, if that is no file.
    """
    target = TARGETS[spec.architecture]
    has_display = spec.display and bool(target.display_options)
    machine = f"{launch.machine or target.machine},memory-backend={MEMORY}"
    hpet = has_hpet(spec, accelerator, launch)
    options = target.machine_options(has_hpet=hpet, has_display=has_display)
    return [
        *begin_command(target),
        *base_options(accelerator, machine, options, launch.cpu, target),
        "-m", f"{spec.memory >> 20}M",
        *_memory(spec.memory, launch),
        "-smp", str(spec.cpus),
        *(
            ["-incoming", launch.incoming]
            if launch.incoming
            else _boot(spec, target.arguments(has_hpet=hpet))
        ),
        *(["-S"] if launch.stands_still else []),
        *_root_disk(spec, launch, root),
        # The host reads and writes the transfer disk while the guest has it open.
        *_transfer_disk(spec.directory / TRANSFER_DISK),
        "-chardev", f"socket,id=link,{link}",
        "-device", "virtio-serial-pci",
        "-device", f"virtserialport,chardev=link,name={PORT_NAME}",
        "-chardev", f"socket,id=console,{console}",
        "-serial", "chardev:console",
        "-chardev", f"socket,id=qmp,{qmp}",
        "-qmp", "chardev:qmp",
        *(_network(spec.forwards) if spec.network else []),
        *(["-device", _BALLOON_DEVICE] if spec.balloon else []),
        *(_gpu(spec.gpu) if spec.gpu is not None else []),
        # Relative to the directory: a socket's path must be short.
        *(["-device", _SCREEN, "-vnc", f"unix:{DISPLAY_SOCKET}"] if has_display else []),
    ]  # fmt: skip


def has_hpet(spec: MachineSpec, accelerator: str, launch: Launch) -> bool:
    """Return whether a machine that starts so has an HPET."""
    if launch.has_hpet is not None:
        return launch.has_hpet
    return TARGETS[spec.architecture].has_hpet(accelerator, spec.cpus)


def _memory(size: int, launch: Launch) -> list[str]:
    # One name for all kinds of memory, as a state moves from one kind to another.
    options: dict[str, object] = {"id": MEMORY, "size": size}
    if launch.memory is Memory.OWN:
        options["qom-type"] = "memory-backend-ram"
    else:
        options["qom-type"] = "memory-backend-file"
        options["mem-path"] = launch.memory_file
        options["share"] = launch.memory is Memory.SHARED
    return ["-object", json.dumps(options)]


def _boot(spec: MachineSpec, target_arguments: Sequence[str]) -> list[str]:
    if spec.kernel is None:
        return []  # the firmware boots the root disk
    arguments = [*target_arguments, *spec.own_arguments]
    if spec.network:
        arguments.append(f"boincvm.network={ADDRESSES}")
    if spec.balloon:
        arguments.append("boincvm.balloon")
    return [
        "-kernel", str(spec.kernel),
        *(["-initrd", str(spec.initrd)] if spec.initrd is not None else []),
        "-append", " ".join(arguments),
    ]  # fmt: skip


def layer_node(name: str) -> str:
    """Return the name of QEMU's block node for a layer of the root disk."""
    return Path(name).stem


def file_node(name: str) -> str:
    """Return the name of the node for the layer's file."""
    return f"{layer_node(name)}-file"


def layer_options(path: Path, below: str | None, *, durable: bool) -> dict[str, object]:
    """Return a writable layer of the root disk for `-blockdev` and `blockdev-add`.

    `durable`: see MachineSpec. Without it QEMU passes what the guest syncs to the host's kernel,
    but does not wait for the disk.
    """
    cache = {"no-flush": not durable}
    return {
        "driver": "qcow2",
        "node-name": layer_node(path.name),
        "discard": "unmap",
        "cache": cache,
        "file": {
            "driver": "file",
            "node-name": file_node(path.name),
            "filename": str(path),
            "cache": cache,
        },
        "backing": below,
    }


def read_only_layer(path: Path, node: str, below: str | None) -> dict[str, object]:
    """Return a layer beneath others for `-blockdev` and `blockdev-add`."""
    return {**_root_layer(path, node, "qcow2"), "backing": below}


def _root_layer(
    path: Path, node: str, disk_format: str, served: int | None = None
) -> dict[str, object]:
    file: dict[str, object] = {"driver": "file", "filename": str(path)}
    if served is not None:
        server = {"type": "fd", "str": str(served)}
        file = {"driver": "nbd", "server": server, "export": ROOT_EXPORT}
    return {
        "driver": disk_format,
        "node-name": node,
        "read-only": True,
        "file": {**file, "read-only": True},
    }


def _root_disk(spec: MachineSpec, launch: Launch, served: int | None) -> list[str]:
    root = _root_layer(spec.root, IMAGE_NODE, spec.root_format, served)
    nodes = [root if spec.root_format == "raw" else {**root, "backing": None}]
    below = IMAGE_NODE
    for name in launch.layers[:-1]:
        nodes.append(read_only_layer(spec.directory / name, layer_node(name), below))
        below = layer_node(name)
    top = launch.layers[-1]
    nodes.append(layer_options(spec.directory / top, below, durable=spec.durable))
    options = [part for node in nodes for part in ("-blockdev", json.dumps(node))]
    return [*options, "-device", f"virtio-blk-pci,drive={layer_node(top)}"]


def _transfer_disk(path: Path) -> list[str]:
    no_flush = {"no-flush": True}
    node = {
        "driver": "raw",
        "node-name": "transfer-disk",
        "cache": no_flush,
        "file": {"driver": "file", "filename": str(path), "locking": "off", "cache": no_flush},
    }
    device = f"virtio-blk-pci,drive=transfer-disk,serial={TRANSFER_DISK_SERIAL}"
    return ["-blockdev", json.dumps(node), "-device", device]


def _gpu(address: str) -> list[str]:
    """Return the options for a device of the host, given by VFIO, on a PCI Express port of its own.

    Without a port its driver would find a device of the chipset, which some do not expect.
    """
    port = f"pcie-root-port,id={_GPU_PORT},chassis=1"
    return ["-device", port, "-device", f"vfio-pci,host={address},bus={_GPU_PORT}"]


def _network(forwards: Sequence[PortForward]) -> list[str]:
    return [
        *user_network("net", forwards),
        "-device",
        f"virtio-net-pci,id={NETWORK_CARD},netdev=net,romfile=",
    ]
