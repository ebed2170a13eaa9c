"""The command line of a User-mode Linux kernel, with inherited descriptors and no host paths."""

from boincvm.errors import HypervisorMissingError
from boincvm.host.memory_files import path_of
from boincvm.host.programs import find_program
from boincvm.hypervisor.contract import MachineSpec

PROGRAM = "linux.uml"
INSTALL_HINT = "install it: apt-get install --no-install-recommends user-mode-linux util-linux"
WINDOW_SERIAL = "boincvm-window"
"""The serial number by which the agent recognizes the transfer disk."""

# One namespace per process tree: when its first process (the User-mode Linux kernel) ends, the
# host's kernel kills all others, the guest's programs, which nothing would control any more.
_NAMESPACE = ("--user", "--map-current-user", "--pid", "--fork", "--kill-child=KILL")


def find(name: str) -> str:
    """Return the path of the program `name`. Raises HypervisorMissingError."""
    path = find_program(name)
    if path is None:
        raise HypervisorMissingError(f"{name} is not installed", hint=INSTALL_HINT)
    return path


def namespace_command() -> list[str]:
    """Return the command that makes a process the first of its own PID namespace.

    Raises HypervisorMissingError.
    """
    return [find("unshare"), *_NAMESPACE]


def machine_command(
    spec: MachineSpec, *, initrd: int, disk: int, window: int, link: int, receipts: int
) -> list[str]:
    """Return the whole command line; all numbers are inherited descriptors.

    The kernel's messages go to standard error. Raises HypervisorMissingError.
    """
    return [
        *namespace_command(),
        find(PROGRAM),
        f"mem={spec.memory >> 20}M",
        f"initrd={path_of(initrd)}",
        f"ubd0={path_of(disk)}",
        f"ubd1={path_of(window)},,{WINDOW_SERIAL}",
        f"ssl0=fd:{link}",
        f"ssl1=fd:{receipts}",
        "ssl=null",
        "con=null",
        "con0=null,fd:2",
        "uml_dir=/dev/null/",  # no directory, so no management console either
        "noreboot",
        "quiet",
        "loglevel=1",  # with 0 the kernel would not even print why it panics
        "random.trust_cpu=on",
        "boincvm.link=serial",
        *spec.kernel_arguments,
    ]  # fmt: skip
