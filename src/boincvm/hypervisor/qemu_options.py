"""QEMU's options that more than one driver gives: its seccomp filter, its user-mode network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boincvm.host.virtualization import HAS_SECCOMP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from boincvm.job.model import PortForward

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_GUEST = "10.0.2.15"
ADDRESSES = f"{_GUEST},10.0.2.2,10.0.2.3"
"""The addresses of the guest, its gateway and its name server, as QEMU's user-mode network assigns
them (docs/system/devices/net.rst); guest/init reads them."""


def common_options() -> list[str]:
    """Return the options that each of our QEMU processes is started with."""
    options = ["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]
    return [*options, "-sandbox", SANDBOX] if HAS_SECCOMP else options


def user_network(name: str, forwards: Sequence[PortForward]) -> list[str]:
    """Return the options for the network `name`, into which ports of 127.0.0.1 lead."""
    rules = [f",hostfwd={forward_rule(port)}" for port in forwards]
    return ["-netdev", f"user,id={name}{''.join(rules)}"]


def forward_rule(port: PortForward) -> str:
    """Return what QEMU is told of a forwarded port."""
    return f"tcp:127.0.0.1:{port.host}-{_GUEST}:{port.guest}"
