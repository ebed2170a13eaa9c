"""PCI devices for virtual machines where there is no VFIO; import it through `passthrough`."""

from boincvm.host.not_yet import not_yet

HAS_PASSTHROUGH = False
"""Whether the system can hand devices to a virtual machine."""


def prepare_passthrough(address: str, memory: int) -> None:
    """Raise UnsupportedHostError."""
    raise not_yet("machines with a graphics card of the host")
