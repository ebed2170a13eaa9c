"""QEMU's command line for a machine: no device, port or file that the machine does not need."""

from pathlib import Path

from boincvm import processes
from boincvm.errors import HypervisorMissingError
from boincvm.hypervisor.contract import MachineSpec

PROGRAM = "qemu-system-x86_64"
INSTALL_HINT = "install it: apt-get install --no-install-recommends qemu-system-x86 qemu-utils"
PORT_NAME = "boincvm.agent"
WINDOW_SERIAL = "boincvm-window"
OVERLAY = "overlay.qcow2"
WINDOW = "window"
_SERIAL = f",serial={WINDOW_SERIAL}"
ROOT_NODE = "root-disk"
NETWORK_CARD = "network-card"
# What the guest frees goes to the host by itself, and a guest that would have to kill a program
# for want of memory takes what it has given back again.
BALLOON = "balloon"
_BALLOON_DEVICE = f"virtio-balloon-pci,id={BALLOON},free-page-reporting=on,deflate-on-oom=on"

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
# q35 calibrates its timers by hardware that microvm lacks: without the host's exact TSC
# frequency two of three microvm boots hung on a loaded machine, and q35 is no slower.
MACHINE = "q35,vmport=off,sata=off,smbus=off,i8042=off,usb=off,graphics=off,smm=off,hpet=off"
KERNEL_ARGUMENTS = [
    "quiet",
    "loglevel=1",  # with 0 the kernel would not even say why it panics
    "console=ttyS0",
    "random.trust_cpu=on",
    "panic=-1",
    "reboot=t",
    # Half of the boot was the kernel's testing its own cryptography, and a machine that has
    # just started has no secrets in its memory to be cleared before use (docs/benchmarks.md).
    "cryptomgr.notests",
    "init_on_alloc=0",
]


def find_program(name: str) -> str:
    """The path of QEMU's program `name`. Raises HypervisorMissingError."""
    path = processes.find_program(name)
    if path is None:
        raise HypervisorMissingError(f"{name} is not installed", hint=INSTALL_HINT)
    return path


def acceleration_options(accelerator: str) -> list[str]:
    """For "kvm" or "tcg" (emulation)."""
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max"]


def base_options(accelerator: str) -> list[str]:
    """What every QEMU of ours is started with."""
    return [
        "-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
        "-sandbox", SANDBOX,
        "-machine", MACHINE,
        *acceleration_options(accelerator),
    ]  # fmt: skip


def machine_command(
    spec: MachineSpec, accelerator: str, *, qmp: int, link: int, console: int, saved: bool
) -> list[str]:
    """The whole command line; `qmp`, `link` and `console` are inherited descriptors.

    `saved`: the guest waits, for its state is to be loaded. (`-loadvm` would refuse: it wants
    a snapshot on every disk, and the transfer disk has none.)
    """
    arguments = [*KERNEL_ARGUMENTS, *spec.kernel_arguments]
    if spec.network:
        arguments.append("boincvm.network")
    if spec.balloon:
        arguments.append("boincvm.balloon")
    cache = "unsafe" if spec.ephemeral else "writeback"
    overlay, window = spec.directory / OVERLAY, spec.directory / WINDOW
    return [
        find_program(PROGRAM),
        *base_options(accelerator),
        "-m", f"{spec.memory >> 20}M",
        "-smp", str(spec.cpus),
        "-kernel", str(spec.kernel),
        "-initrd", str(spec.initrd),
        "-append", " ".join(arguments),
        # What is to outlive a power cut keeps the order of its writes.
        *_disk("root", overlay, "qcow2", f"discard=unmap,cache={cache}"),
        # The host reads and writes the window while the guest has it open.
        *_disk("window", window, "raw", "file.locking=off,cache=unsafe", _SERIAL),
        "-chardev", f"socket,id=link,fd={link}",
        "-device", "virtio-serial-pci",
        "-device", f"virtserialport,chardev=link,name={PORT_NAME}",
        "-chardev", f"socket,id=console,fd={console}",
        "-serial", "chardev:console",
        "-chardev", f"socket,id=qmp,fd={qmp}",
        "-mon", "chardev=qmp,mode=control",
        *_network(spec.network),
        *(["-device", _BALLOON_DEVICE] if spec.balloon else []),
        *(["-S"] if saved else []),
    ]  # fmt: skip


def _disk(name: str, path: Path, form: str, options: str, device_options: str = "") -> list[str]:
    escaped = str(path).replace(",", ",,")
    drive = f"if=none,id={name},node-name={name}-disk,file={escaped},format={form},{options}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name}{device_options}"]


def _network(wanted: bool) -> list[str]:
    if not wanted:
        return []
    return [
        "-netdev",
        "user,id=net",
        "-device",
        f"virtio-net-pci,id={NETWORK_CARD},netdev=net,romfile=",
    ]
