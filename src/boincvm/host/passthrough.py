"""PCI devices of the host that a virtual machine gets as its own."""

import sys

if sys.platform == "linux":
    from boincvm.host.passthrough_linux import HAS_PASSTHROUGH, prepare_passthrough
else:
    from boincvm.host.passthrough_unsupported import HAS_PASSTHROUGH, prepare_passthrough

__all__ = [
    "HAS_PASSTHROUGH",
    "prepare_passthrough",
]
