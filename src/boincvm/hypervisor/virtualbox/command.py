"""The options of `VBoxManage` that define a machine, with nothing that it does not need.

They have the names that all versions take: 6.1 knows no others, as its published source shows, and
7.0 to 7.2 take these beside newer ones with more hyphens (`--nictype1`, `--nic-type1`).
"""

from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.kernel_arguments import X86_64
from boincvm.hypervisor.virtualbox.vboxmanage import Version

BOOT_CONTROLLER, DISK_CONTROLLER = "boot", "disks"
LINK, RECEIPTS, CONSOLE = 0, 1, 2
"""The serial lines."""
LINES = (LINK, RECEIPTS, CONSOLE)
_PORTS = (("0x3f8", 4), ("0x2f8", 3), ("0x3e8", 10))
"""Address and interrupt of each line. No two share an interrupt."""
_GUEST = "10.0.2.15"
_ADDRESSES = f"{_GUEST},10.0.2.2,10.0.2.3"
"""The addresses of the guest, its gateway and its name server in VirtualBox's NAT network."""
_HARDWARE_ADDRESS = "080027B01C01"
"""Each machine has a network of its own, and one that goes on must find its card as it was."""
MOST_CPUS = 32

KERNEL_ARGUMENTS = (*X86_64, "console=ttyS2", "boincvm.link=serial")


def kernel_arguments(spec: MachineSpec) -> str:
    """Return the kernel's command line."""
    network = (f"boincvm.network={_ADDRESSES}",) if spec.network else ()
    return " ".join((*KERNEL_ARGUMENTS, *network, *spec.own_arguments))


def create(name: str, directory: str, machine_id: str) -> list[str]:
    """Return the verb that makes a machine."""
    return [
        "createvm",
        *("--name", name, "--basefolder", directory, "--ostype", "Linux26_64"),
        *("--uuid", machine_id, "--register"),
    ]


def modify(
    name: str, spec: MachineSpec, version: Version, sockets: tuple[str, ...], snapshots: str
) -> list[str]:
    """Return the verb that gives the machine its devices.

    `sockets`: paths that its serial lines connect to; `snapshots`: where saved states go.
    """
    boots_disc = spec.kernel is not None
    options = [
        "modifyvm", name,
        "--memory", str(spec.memory >> 20),
        "--cpus", str(spec.cpus),
        "--ioapic", "on",
        "--rtcuseutc", "on",
        "--triplefaultreset", "on",  # a reset ends it: see `extra_data`
        "--boot1", "dvd" if boots_disc else "disk",
        "--boot2", "none", "--boot3", "none", "--boot4", "none",
        "--graphicscontroller", "vboxvga", "--vram", "1",
        "--mouse", "ps2", "--keyboard", "ps2",
        *_audio_off(version),
        "--vrde", "off",
        "--snapshotfolder", snapshots,
    ]  # fmt: skip
    if spec.network:
        options += ["--nic1", "nat", "--nictype1", "virtio", "--macaddress1", _HARDWARE_ADDRESS]
        for port in spec.forwards:
            rule = f"tcp-{port.host},tcp,127.0.0.1,{port.host},{_GUEST},{port.guest}"
            options += ["--natpf1", rule]
    else:
        options += ["--nic1", "none"]
    for line, (address, interrupt) in enumerate(_PORTS, start=1):
        options += [f"--uart{line}", address, str(interrupt)]
        options += [f"--uarttype{line}", "16550A"]
        options += [f"--uartmode{line}", "client", sockets[line - 1]]
    return options


def _audio_off(version: Version) -> list[str]:
    return ["--audio-enabled", "off"] if version >= (7, 0, 4) else ["--audio", "none"]


def extra_data(name: str) -> list[str]:
    """Return the verb that has a machine end when its guest reboots, as under QEMU."""
    return ["setextradata", name, "VBoxInternal/PowerOffInsteadOfReset", "1"]


def controllers(name: str) -> list[list[str]]:
    """Return the verbs that add the controllers of the boot disc and of the disks."""
    boot = ("--name", BOOT_CONTROLLER, "--add", "ide", "--controller", "PIIX4")
    disks = ("--name", DISK_CONTROLLER, "--add", "pcie", "--controller", "NVMe")
    return [
        ["storagectl", name, *boot, "--portcount", "2", "--hostiocache", "on"],
        ["storagectl", name, *disks, "--portcount", "2", "--hostiocache", "on"],
    ]


def attach(name: str, controller: str, port: int, kind: str, medium: str) -> list[str]:
    """Return the verb that puts a medium into a drive, or a disk on a controller."""
    return [
        *("storageattach", name, "--storagectl", controller, "--port", str(port), "--device", "0"),
        *("--type", kind, "--medium", medium),
    ]
