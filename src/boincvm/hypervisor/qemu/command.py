"""QEMU's command line for a machine, with no device, port or file that the machine does not need.

Paths are given in JSON with the format of each file: nothing is probed, and a comma, colon or
equals sign in a name has no meaning to QEMU.
"""

import json
from pathlib import Path

from boincvm.errors import HypervisorMissingError
from boincvm.host import programs
from boincvm.hypervisor.contract import DISPLAY_SOCKET, MachineSpec
from boincvm.hypervisor.disks import TRANSFER_DISK
from boincvm.hypervisor.qemu.launch import Launch, Memory
from boincvm.hypervisor.qemu.target import TARGETS, X86_64, Target

INSTALL_HINT = X86_64.install_hint
PORT_NAME = "boincvm.agent"
WINDOW_SERIAL = "boincvm-window"
NETWORK_CARD = "network-card"
_ADDRESSES = "10.0.2.15,10.0.2.2,10.0.2.3"
"""The addresses of the guest, its gateway and its name server, as QEMU's user-mode network assigns
them (docs/system/devices/net.rst); guest/init reads them."""
MEMORY = "memory"
IMAGE_NODE = "image"
# Memory that the guest frees is given to the host automatically, and a guest that is about to
# kill a program for lack of memory takes back what it has given.
BALLOON = "balloon"
_SCREEN = "VGA,vgamem_mb=8"
_BALLOON_DEVICE = f"virtio-balloon-pci,id={BALLOON},free-page-reporting=on,deflate-on-oom=on"

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
PROGRAM, CPUS, KERNEL_ARGUMENTS = X86_64.program, X86_64.cpus, X86_64.kernel_arguments
"""Those of machines for x86-64."""


def find_program(name: str) -> str:
    """Return the path of QEMU's program `name`. Raises HypervisorMissingError."""
    path = programs.find_program(name)
    if path is None:
        hints = {target.program: target.install_hint for target in TARGETS.values()}
        raise HypervisorMissingError(f"{name} is not installed", hint=hints.get(name, INSTALL_HINT))
    return path


def acceleration_options(accelerator: str, cpu: str = "", target: Target = X86_64) -> list[str]:
    """Return the options for "kvm" or "tcg" (emulation); `cpu` overrides the target's usual CPU."""
    how = "kvm" if accelerator == "kvm" else "tcg,thread=multi,tb-size=256"
    return ["-accel", how, "-cpu", cpu or target.cpus[accelerator]]


def base_options(
    accelerator: str, machine: str = "", options: str = "", cpu: str = "", target: Target = X86_64
) -> list[str]:
    """Return the options that each of our QEMU processes is started with.

    The target's usual ones take the place of those that are empty.
    """
    return [
        "-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
        "-sandbox", SANDBOX,
        "-machine", f"{machine or target.machine},{options or target.options}",
        *acceleration_options(accelerator, cpu, target),
    ]  # fmt: skip


def machine_command(
    spec: MachineSpec, accelerator: str, launch: Launch, *, qmp: int, link: int, console: int
) -> list[str]:
    """Return the whole command line; `qmp`, `link` and `console` are inherited descriptors."""
    target = TARGETS[spec.architecture]
    has_display = spec.display and bool(target.display_options)
    machine = f"{launch.machine or target.machine},memory-backend={MEMORY}"
    options = target.display_options if has_display else target.options
    return [
        find_program(target.program),
        *base_options(accelerator, machine, options, launch.cpu, target),
        "-m", f"{spec.memory >> 20}M",
        *_memory(spec.memory, launch),
        "-smp", str(spec.cpus),
        *(_incoming(launch) if launch.incoming else _boot(spec, target)),
        *(["-S"] if launch.stands_still else []),
        *_root_disk(spec, launch),
        # The host reads and writes the transfer disk while the guest has it open.
        *_window(spec.directory / TRANSFER_DISK),
        "-chardev", f"socket,id=link,fd={link}",
        "-device", "virtio-serial-pci",
        "-device", f"virtserialport,chardev=link,name={PORT_NAME}",
        "-chardev", f"socket,id=console,fd={console}",
        "-serial", "chardev:console",
        "-chardev", f"socket,id=qmp,fd={qmp}",
        "-mon", "chardev=qmp,mode=control",
        *_network(spec.network),
        *(["-device", _BALLOON_DEVICE] if spec.balloon else []),
        # Relative to the directory: a socket's path must be short.
        *(["-device", _SCREEN, "-vnc", f"unix:{DISPLAY_SOCKET}"] if has_display else []),
    ]  # fmt: skip


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


def _boot(spec: MachineSpec, target: Target) -> list[str]:
    if spec.kernel is None:
        return []  # the firmware boots the root disk
    arguments = [*target.kernel_arguments, *spec.kernel_arguments]
    if spec.network:
        arguments.append(f"boincvm.network={_ADDRESSES}")
    if spec.balloon:
        arguments.append("boincvm.balloon")
    return [
        "-kernel", str(spec.kernel),
        *(["-initrd", str(spec.initrd)] if spec.initrd is not None else []),
        "-append", " ".join(arguments),
    ]  # fmt: skip


def _incoming(launch: Launch) -> list[str]:
    incoming = ["-incoming", launch.incoming]
    if not launch.has_configuration:
        incoming += ["-global", "migration.send-configuration=off"]
    return incoming


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


def _root_layer(path: Path, node: str, disk_format: str) -> dict[str, object]:
    return {
        "driver": disk_format,
        "node-name": node,
        "read-only": True,
        "file": {"driver": "file", "filename": str(path), "read-only": True},
    }


def _root_disk(spec: MachineSpec, launch: Launch) -> list[str]:
    root = _root_layer(spec.root, IMAGE_NODE, spec.root_format)
    nodes = [root if spec.root_format == "raw" else {**root, "backing": None}]
    below = IMAGE_NODE
    for name in launch.layers[:-1]:
        nodes.append(read_only_layer(spec.directory / name, layer_node(name), below))
        below = layer_node(name)
    top = launch.layers[-1]
    nodes.append(layer_options(spec.directory / top, below, durable=spec.durable))
    options = [part for node in nodes for part in ("-blockdev", json.dumps(node))]
    return [*options, "-device", f"virtio-blk-pci,drive={layer_node(top)}"]


def _window(path: Path) -> list[str]:
    no_flush = {"no-flush": True}
    node = {
        "driver": "raw",
        "node-name": "window",
        "cache": no_flush,
        "file": {"driver": "file", "filename": str(path), "locking": "off", "cache": no_flush},
    }
    device = f"virtio-blk-pci,drive=window,serial={WINDOW_SERIAL}"
    return ["-blockdev", json.dumps(node), "-device", device]


def _network(wanted: bool) -> list[str]:
    if not wanted:
        return []
    return [
        "-netdev",
        "user,id=net",
        "-device",
        f"virtio-net-pci,id={NETWORK_CARD},netdev=net,romfile=",
    ]
