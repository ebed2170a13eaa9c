"""The command line of a User-mode Linux kernel, with inherited descriptors and no host paths."""

from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.uml.disks import Disks, path_of
from boincvm.hypervisor.uml.sandbox import INITRD

WINDOW_SERIAL = "boincvm-window"
"""The serial number by which the agent recognizes the transfer disk."""


def kernel_arguments(
    spec: MachineSpec, disks: Disks, *, is_own: bool, link: int, receipts: int
) -> list[str]:
    """Return the kernel's arguments; `link` and `receipts` are inherited descriptors.

    The kernel's messages go to standard error.
    """
    return [
        f"mem={spec.memory >> 20}M",
        f"initrd={INITRD}",
        f"ubd0={disks.root_argument}",
        f"ubd1={path_of(disks.window)},,{WINDOW_SERIAL}",
        f"ssl0=fd:{link}",
        f"ssl1=fd:{receipts}",
        "ssl=null",
        "con=null",
        "con0=null,fd:2",
        "uml_dir=/tmp/",  # of the sandbox, where nobody can reach the management console
        "noreboot",
        "quiet",
        "loglevel=1",  # with 0 the kernel would not even print why it panics
        "random.trust_cpu=on",
        *(_OF_OUR_KERNEL if is_own else ()),
        "boincvm.link=serial",
        *spec.kernel_arguments,
    ]  # fmt: skip


_OF_OUR_KERNEL = (
    "seccomp=on",  # the guest's programs are not traced, which is faster
    "lpj=30000000",  # nothing waits by counting loops, so none need be measured: 50 ms
)
