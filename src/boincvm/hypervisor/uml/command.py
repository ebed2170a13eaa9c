"""The command line of a User-mode Linux kernel, with inherited descriptors and no host paths."""

from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.qemu_options import ADDRESSES
from boincvm.hypervisor.uml.disks import Disks, path_of
from boincvm.hypervisor.uml.sandbox import INITRD

TRANSFER_DISK_SERIAL = "boincvm-transfer"
"""The serial number by which the agent recognizes the transfer disk."""


def kernel_arguments(
    spec: MachineSpec,
    disks: Disks,
    *,
    is_own: bool,
    link: int,
    receipts: int,
    card: int | None = None,
) -> list[str]:
    """Return the kernel's arguments; `link`, `receipts` and `card` are inherited descriptors.

    `card`: the socket of its network card, None if it has none. The kernel's messages go to
    standard error.
    """
    network = (f"vec0:transport=fd,fd={card}", f"boincvm.network={ADDRESSES}")
    return [
        f"mem={spec.memory >> 20}M",
        f"initrd={INITRD}",
        f"ubd0={disks.root_argument}",
        f"ubd1={path_of(disks.transfer_disk)},,{TRANSFER_DISK_SERIAL}",
        f"ssl0=fd:{link}",
        f"ssl1=fd:{receipts}",
        "ssl=null",
        "con=null",
        "con0=null,fd:2",
        "uml_dir=/tmp/",  # of the sandbox, where nobody can reach the management console
        "noreboot",
        "quiet",
        "loglevel=4",  # with less the kernel would not print that a disk of the host is full
        "random.trust_cpu=on",
        *(_OF_OUR_KERNEL if is_own else ()),
        "boincvm.link=serial",
        *(() if card is None else network),
        *spec.own_arguments,
    ]  # fmt: skip


_OF_OUR_KERNEL = (
    "seccomp=on",  # the guest's programs are not traced, which is faster
    "lpj=30000000",  # nothing waits by counting loops, so none need be measured: 50 ms
)
