"""The domain's definition, with no device that the machine does not need.

Format: libvirt's formatdomain page. It is made by an XML library: no name of a file can say more
than that it is a name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, register_namespace, tostring

from boincvm.errors import HypervisorError
from boincvm.host.users import user_and_group
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.kernel_arguments import X86_64
from boincvm.hypervisor.libvirt.uri import Uri
from boincvm.hypervisor.qemu_options import ADDRESSES

NAMESPACE = "https://boincvm.org/libvirt/1"
"""Of the element in a domain's metadata that says that the domain is ours."""
PREFIX = "boincvm-"
"""Of our domains' names."""
PORT_NAME = "boincvm.agent"
TRANSFER_DISK_SERIAL = "boincvm-transfer"
NEWEST_TYPE = "q35"
"""The machine type of that kind which the hypervisor takes for a new machine."""
ROOT_TARGET, TRANSFER_DISK_TARGET = "vda", "vdb"
"""What libvirt calls the disks."""
CARD_ADDRESS = "52:54:00:b0:1c:01"
"""Each machine has a network of its own, so all cards have the same address."""
REPORT_PERIOD = 5
"""Seconds between a guest's reports on its memory."""
KERNEL_ARGUMENTS = (*X86_64, "console=ttyS0", "reboot=t")
EMULATED_ARGUMENT = "nolapic_timer"
"""For one emulated processor: its HPET has a register with its speed, while Linux would measure the
processor's own timer for 0.1 s of each boot."""
_QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
"""Of what libvirt has for QEMU alone."""
register_namespace("boincvm", NAMESPACE)
register_namespace("qemu", _QEMU_NAMESPACE)


class Layer(NamedTuple):
    """A file of the root disk."""

    path: Path
    format: str


class Domain(NamedTuple):
    """What libvirt needs to know of a domain beyond the machine's specification."""

    id: str
    """The machine's id, which its name ends with."""
    uuid: str
    uri: Uri
    is_accelerated: bool
    """Whether the processor runs the guest's code, or it is emulated."""
    layers: Sequence[Layer]
    """The root disk, the writable file first, what lies beneath it after it."""
    transfer_disk: Path
    """The transfer disk."""
    link: Path
    console: Path
    """Sockets that the hypervisor connects to."""
    machine_type: str = NEWEST_TYPE

    @property
    def name(self) -> str:
        return PREFIX + self.id


def definition(spec: MachineSpec, domain: Domain) -> str:
    """Return the domain's definition. Raises HypervisorError for a kernel without an initrd."""
    root = Element("domain", type=_kind(domain))
    _text(root, "name", domain.name)
    _text(root, "uuid", domain.uuid)
    metadata = SubElement(root, "metadata")
    SubElement(metadata, f"{{{NAMESPACE}}}machine", id=domain.id)
    _text(root, "memory", str(spec.memory >> 10), unit="KiB")
    _text(root, "vcpu", str(spec.cpus))
    _boot(root, spec, domain)
    _processor(root, domain)
    SubElement(root, "clock", offset="utc")
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _text(root, event, "destroy")
    _devices(SubElement(root, "devices"), spec, domain)
    if _kind(domain) == "qemu":
        _short_queries(root)
    if domain.uri.is_system and domain.uri.hypervisor == "qemu":
        # The machine runs as the user that asks for it, whose files it is made of; nothing of them
        # is given to another user.
        label = SubElement(root, "seclabel", type="static", model="dac", relabel="no")
        user, group = user_and_group()
        _text(label, "label", f"+{user}:+{group}")
    return tostring(root, encoding="unicode")


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = text


def _kind(domain: Domain) -> str:
    if domain.uri.hypervisor != "qemu":
        return domain.uri.hypervisor
    return "kvm" if domain.is_accelerated else "qemu"


def _short_queries(root: Element) -> None:
    """Have libvirt ask QEMU for all features of the processor at once.

    It would ask for each of 400 by itself, which takes up to a quarter of the time until a machine
    has booted. So it does only if it knows a QEMU that tells which features it lacks, as all do.
    """
    capabilities = SubElement(root, f"{{{_QEMU_NAMESPACE}}}capabilities")
    SubElement(capabilities, f"{{{_QEMU_NAMESPACE}}}del", capability="cpu-unavailable-features")


def _boot(root: Element, spec: MachineSpec, domain: Domain) -> None:
    system = SubElement(root, "os")
    _text(system, "type", "hvm", arch="x86_64", machine=domain.machine_type)
    if spec.kernel is None:
        SubElement(system, "boot", dev="hd")
        return
    if spec.initrd is None:
        raise HypervisorError("the machine was given a kernel, but no initrd")
    arguments = [*KERNEL_ARGUMENTS, *spec.own_arguments]
    if spec.network:
        arguments.append(f"boincvm.network={ADDRESSES}")
    if spec.balloon:
        arguments.append("boincvm.balloon")
    if _kind(domain) == "qemu" and spec.cpus == 1:
        arguments.append(EMULATED_ARGUMENT)
    _text(system, "kernel", str(spec.kernel))
    _text(system, "initrd", str(spec.initrd))
    _text(system, "cmdline", " ".join(arguments))


def _processor(root: Element, domain: Domain) -> None:
    features = SubElement(root, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    SubElement(features, "vmport", state="off")
    SubElement(features, "smm", state="off")
    if domain.is_accelerated or domain.uri.hypervisor != "qemu":
        SubElement(root, "cpu", mode="host-passthrough")
        return
    _text(SubElement(features, "tcg"), "tb-cache", "256", unit="MiB")
    cpu = SubElement(root, "cpu", mode="maximum")
    # With them the guest's kernel clears and copies memory byte by byte: slow under emulation.
    for name in ("erms", "fsrm"):
        SubElement(cpu, "feature", policy="disable", name=name)


def _devices(devices: Element, spec: MachineSpec, domain: Domain) -> None:
    SubElement(devices, "controller", type="usb", model="none")
    _root_disk(devices, spec, domain.layers)
    transfer_disk = _disk(devices, domain.transfer_disk, "raw", TRANSFER_DISK_TARGET, "unsafe")
    _text(transfer_disk, "serial", TRANSFER_DISK_SERIAL)
    _address(transfer_disk, 3)
    _address(SubElement(devices, "controller", type="virtio-serial", index="0"), 4)
    channel = SubElement(devices, "channel", type="unix")
    SubElement(channel, "source", mode="connect", path=str(domain.link))
    SubElement(channel, "target", type="virtio", name=PORT_NAME)
    serial = SubElement(devices, "serial", type="unix")
    SubElement(serial, "source", mode="connect", path=str(domain.console))
    SubElement(serial, "target", type="isa-serial", port="0")
    _balloon(devices, wanted=spec.balloon)
    if spec.network:
        _card(devices, connected=True)


def _disk(devices: Element, path: Path, disk_format: str, target: str, cache: str) -> Element:
    disk = SubElement(devices, "disk", type="file", device="disk")
    SubElement(disk, "driver", name="qemu", type=disk_format, cache=cache, discard="unmap")
    SubElement(disk, "source", file=str(path))
    SubElement(disk, "target", dev=target, bus="virtio")
    return disk


def _address(device: Element, slot: int) -> None:
    # On the root bus. libvirt would put each device behind a bridge of its own, and an emulated
    # kernel takes its time to look behind each.
    SubElement(device, "address", type="pci", domain="0", bus="0", slot=str(slot), function="0")


def _root_disk(devices: Element, spec: MachineSpec, layers: Sequence[Layer]) -> None:
    top, *below = layers
    disk = _disk(
        devices, top.path, top.format, ROOT_TARGET, "writeback" if spec.durable else "unsafe"
    )
    _address(disk, 2)
    # Said in full: neither libvirt nor QEMU believes what a file says lies beneath it.
    parent = disk
    for layer in below:
        parent = SubElement(parent, "backingStore", type="file")
        SubElement(parent, "format", type=layer.format)
        SubElement(parent, "source", file=str(layer.path))
    SubElement(parent, "backingStore")


def root_disk(spec: MachineSpec, layers: Sequence[Layer]) -> str:
    """Return the root disk's definition."""
    devices = Element("devices")
    _root_disk(devices, spec, layers)
    return tostring(devices[0], encoding="unicode")


def _balloon(devices: Element, *, wanted: bool) -> None:
    if not wanted:
        SubElement(devices, "memballoon", model="none")
        return
    balloon = SubElement(
        devices, "memballoon", model="virtio", autodeflate="on", freePageReporting="on"
    )
    _address(balloon, 6)


def _card(devices: Element, *, connected: bool) -> None:
    card = SubElement(devices, "interface", type="user")
    SubElement(card, "mac", address=CARD_ADDRESS)
    SubElement(card, "model", type="virtio")
    SubElement(card, "link", state="up" if connected else "down")
    SubElement(card, "rom", enabled="no")
    _address(card, 5)


def card(*, connected: bool) -> str:
    """Return the network card's definition with its cable plugged in or not."""
    devices = Element("devices")
    _card(devices, connected=connected)
    return tostring(devices[0], encoding="unicode")
