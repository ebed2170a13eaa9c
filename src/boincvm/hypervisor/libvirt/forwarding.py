"""Ports of the host that lead into a domain, by QEMU's monitor: libvirt has no word for them."""

from collections.abc import Iterable

import libvirt
import libvirt_qemu

from boincvm.errors import HypervisorError
from boincvm.hypervisor.libvirt.connection import ANSWER_LIMIT, call
from boincvm.hypervisor.qemu_options import forward_rule
from boincvm.job.model import PortForward

_NETWORK = "hostnet0"
"""What libvirt names the network of a domain's first card for QEMU."""
_TEXT = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP


async def forward_ports(domain: libvirt.virDomain, forwards: Iterable[PortForward]) -> None:
    """Forward ports of 127.0.0.1 into a domain that has a network. Raises HypervisorError."""
    for port in forwards:
        command = f"hostfwd_add {_NETWORK} {forward_rule(port)}"
        answer = await call(ANSWER_LIMIT, libvirt_qemu.qemuMonitorCommand, domain, command, _TEXT)
        if answer.strip():  # QEMU says nothing of what it has done
            raise HypervisorError(f"port {port.host} cannot be forwarded: {ascii(answer)[:200]}")
