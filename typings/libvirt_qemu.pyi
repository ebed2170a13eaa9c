"""What boincvm uses of libvirt-python's module for QEMU, which has no types of its own."""

import libvirt

VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP: int

def qemuMonitorCommand(domain: libvirt.virDomain, cmd: str, flags: int) -> str: ...  # noqa: N802
