"""The machine's definition, its .vmx file, with no device that it does not need.

Each line is `name = "value"`. In a value a quote, a bar and whatever does not print are written as
`|` and two hexadecimal digits.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import UsageError
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.kernel_arguments import X86_64

LINK, RECEIPTS, CONSOLE = 0, 1, 2
"""The serial lines."""
LINES = (LINK, RECEIPTS, CONSOLE)
CONSOLE_PORT = 0x3E8
"""The port of the third line, where VMware puts it."""
DISK = "nvme0:0"
"""Debian's kernel for clouds has the driver of NVMe built in."""
DISK_FILE = f"{DISK}.fileName"
SAVED_STATE = "checkpoint.vmState"
"""The value that names the file from which a machine goes on; VMware empties it then."""
MOST_CPUS = 16
_MEMORY_STEP = 4 << 20
KERNEL_ARGUMENTS = (*X86_64, "console=ttyS2", "boincvm.link=serial")
_LINE = re.compile(r'^\s*([\w.:]+)\s*=\s*"(.*)"\s*$')
_LONGEST_LINE = 8192
_MOST_LINES = 2000


class Definition(NamedTuple):
    """What VMware needs to know of a machine beyond its specification."""

    name: str
    directory: Path
    """Where VMware puts saved states and layers."""
    disk: Path
    """The writable layer of the root disk."""
    boot_disc: Path
    sockets: tuple[Path, ...]
    """Paths that the serial lines connect to."""
    state: Path | None = None
    """The saved state from which it goes on, which stays as it is."""


def kernel_arguments(spec: MachineSpec) -> str:
    """Return the kernel's command line."""
    return " ".join((*KERNEL_ARGUMENTS, *spec.own_arguments))


def definition(spec: MachineSpec, machine: Definition) -> str:
    """Return the .vmx file's text. Raises UsageError for a size that VMware does not have."""
    if spec.memory % _MEMORY_STEP:
        raise UsageError(
            "VMware gives a machine memory in steps of 4 MiB only",
            hint="ask for a multiple of 4 MiB",
        )
    values = {
        **_MACHINE,
        "displayName": machine.name,
        "memsize": str(spec.memory >> 20),
        "numvcpus": str(spec.cpus),
        "cpuid.coresPerSocket": str(spec.cpus),
        "workingDir": str(machine.directory),
        DISK_FILE: str(machine.disk),
        "ide1:0.present": "TRUE",
        "ide1:0.deviceType": "cdrom-image",
        "ide1:0.fileName": str(machine.boot_disc),
        "ide1:0.startConnected": "TRUE" if machine.state is None else "FALSE",
    }
    for line in LINES:
        values |= {
            f"serial{line}.present": "TRUE",
            f"serial{line}.fileType": "pipe",
            f"serial{line}.fileName": str(machine.sockets[line]),
            f"serial{line}.pipe.endPoint": "client",
            f"serial{line}.startConnected": "TRUE",
            f"serial{line}.tryNoRxLoss": "TRUE",
            f"serial{line}.yieldOnMsrRead": "TRUE",
        }
    if machine.state is not None:
        # As VMware itself writes it for a machine that goes on from a snapshot.
        values |= {SAVED_STATE: str(machine.state), f"{SAVED_STATE}.readOnly": "TRUE"}
    return "".join(f'{name} = "{_escaped(value)}"\n' for name, value in values.items())


_OFF = (
    *("floppy0", "sound", "usb", "ehci", "usb_xhci", "ethernet0", "vmci0", "parallel0"),
    *("hpet0", "sata0", "scsi0"),
)
_MACHINE: Mapping[str, str] = {
    ".encoding": "UTF-8",
    "config.version": "8",
    "virtualHW.version": "14",  # Workstation 14, Fusion 10: the first with NVMe disks in all
    "guestOS": "other4xlinux-64",
    "firmware": "bios",
    "bios.bootOrder": "cdrom",
    # Nobody is there to answer a question.
    "msg.autoAnswer": "TRUE",
    "uuid.action": "keep",
    "vmx.buildType": "release",
    "pciBridge0.present": "TRUE",
    "nvme0.present": "TRUE",
    f"{DISK}.present": "TRUE",
    # What is saved is whole when the verb ends, and what goes on has all of it.
    "mainMem.partialLazySave": "FALSE",
    "mainMem.partialLazyRestore": "FALSE",
    "mainMem.useNamedFile": "FALSE",
    "snapshot.maxSnapshots": "496",
    # Nothing passes between guest and host but the serial lines.
    "isolation.tools.copy.disable": "TRUE",
    "isolation.tools.paste.disable": "TRUE",
    "isolation.tools.dnd.disable": "TRUE",
    "isolation.tools.hgfs.disable": "TRUE",
    "isolation.tools.hgfsServerSet.disable": "TRUE",
    "isolation.tools.getCreds.disable": "TRUE",
    "isolation.device.connectable.disable": "TRUE",
    "isolation.device.edit.disable": "TRUE",
    "sharedFolder.maxNum": "0",
    "tools.syncTime": "FALSE",
    "RemoteDisplay.vnc.enabled": "FALSE",
    "mks.enable3d": "FALSE",
    "log.keepOld": "1",
    "log.rotateSize": "1048576",
    **{f"{device}.present": "FALSE" for device in _OFF},
}


def _escaped(value: str) -> str:
    return "".join(
        character
        if character.isprintable() and character not in '"|'
        else "".join(f"|{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))
        for character in value
    )


def _unescaped(value: str) -> str:
    parts = value.split("|")
    raw = bytearray(parts[0].encode("utf-8", "surrogateescape"))
    for part in parts[1:]:
        try:
            raw.append(int(part[:2], 16))
        except ValueError:
            raw += b"|" + part[:2].encode("utf-8", "surrogateescape")
        raw += part[2:].encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "surrogateescape")


def parse(text: str) -> dict[str, str]:
    """Return the values of a .vmx file by their names, which are in lower case, as VMware reads it.

    Lines that are no settings, and what is longer than any of ours, are left out.
    """
    values = {}
    for line in text.splitlines()[:_MOST_LINES]:
        match = _LINE.match(line) if len(line) <= _LONGEST_LINE else None
        if match is not None:
            values[match[1].lower()] = _unescaped(match[2])
    return values
