"""`VBoxManage`: how it is called, what it prints, and what its errors mean.

Results come on standard output; errors, warnings and progress on standard error. An error is a
line of text, and mostly a second one with a code's name. Debian's `VBoxManage` is a script that
prints a warning of its own on standard output where the kernel module is not loaded.
"""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from boincvm.errors import HostDiskFullError, HypervisorError
from boincvm.hypervisor.management_command import answer_of
from boincvm.hypervisor.virtualbox.installation import MANAGE, MODULE_HINT, program
from boincvm.redaction import redact

_LIMIT = 120.0
"""Seconds that a call may take. Most take 30 ms, saving a large machine's memory some seconds."""
_LONGEST_TEXT = 300
_PREAMBLE = "WARNING: The character device /dev/vboxdrv does not exist."
_PREAMBLE_END = "will not be able to start VMs"
_ERROR = re.compile(
    r"^(?:VBox(?:Manage|Headless): error: |Error: failed to start machine\. Error message: )(.*)$",
    re.MULTILINE,
)
_CODE = re.compile(r"^Details: code (\w+) \(0x[0-9a-f]+\)")
_VERSION = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})")
_DISK_FULL = "VERR_DISK_FULL"
_CODES_OF_CONTEXT = ("Details: ", "Context: ")


class Version(NamedTuple):
    """A version of VirtualBox."""

    major: int
    minor: int
    build: int

    def __str__(self) -> str:
        return ".".join(map(str, self))


class VirtualBoxError(HypervisorError):
    """What VirtualBox refused; `text` is what it said, `code` the name of its code, or empty."""

    def __init__(self, message: str, *, text: str = "", code: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.text = text
        self.code = code


class VBoxManage:
    """Calls `VBoxManage` with an environment that says whose VirtualBox it is."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)

    async def run(self, *arguments: str) -> str:
        """Run one verb and return what it prints.

        Raises VirtualBoxError, HypervisorError, HypervisorMissingError, HostDiskFullError, OSError.
        """
        answer = await answer_of(
            [program(MANAGE), *arguments],
            f"VBoxManage {arguments[0]}",
            environment=self._environment,
            limit=_LIMIT,
        )
        if answer.status != 0:
            raise error_from(arguments[0], answer.errors)
        return without_preamble(answer.output)


def without_preamble(output: str) -> str:
    """Return the output without the warning that Debian's script puts before it."""
    if not output.startswith(_PREAMBLE):
        return output
    lines = output.splitlines(keepends=True)
    ends = [number for number, line in enumerate(lines) if _PREAMBLE_END in line]
    if not ends:
        return output
    rest = lines[ends[0] + 1 :]
    while rest and (rest[0].startswith("\t") or not rest[0].strip()):
        del rest[0]
    return "".join(rest)


def parse_version(output: str) -> Version:
    """Return the version that `VBoxManage --version` printed. Raises HypervisorError."""
    text = without_preamble(output).strip()
    match = _VERSION.match(text)
    if match is None:
        raise HypervisorError(f"VBoxManage does not report its version, but {_one_line(text)!r}")
    return Version(*map(int, match.groups()))


def parse_table(output: str) -> dict[str, str]:
    """Return the values that `showvminfo --machinereadable` printed, by their names."""
    table = {}
    for line in output.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            table[_unquoted(name)] = _unquoted(value)
    return table


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def error_from(verb: str, output: str) -> HypervisorError | HostDiskFullError:
    """Return the error for what `VBoxManage verb` or VBoxHeadless wrote about it."""
    lines = _ERROR.findall(output)
    texts = [line for line in lines if not line.startswith(_CODES_OF_CONTEXT)]
    codes = [match[1] for line in lines if (match := _CODE.match(line))]
    text = _one_line(" ".join(texts) or output)
    if _DISK_FULL in text:
        return HostDiskFullError(
            f"the host's disk is full: {text}", hint="free some space and try again"
        )
    for sign, advice in _ADVICE:
        if sign in output:
            return VirtualBoxError(
                f"VirtualBox cannot start a machine: {text}",
                text=text,
                code=codes[0] if codes else "",
                hint=advice,
            )
    return VirtualBoxError(
        f"VirtualBox refused {verb}: {text}", text=text, code=codes[0] if codes else ""
    )


_OTHER_HINT = "end other hypervisors (KVM, Hyper-V, VMware), or use another driver"
_ADVICE = (
    ("Kernel driver not installed", MODULE_HINT),
    ("Error -1908", MODULE_HINT),
    ("VERR_VM_DRIVER_NOT_INSTALLED", MODULE_HINT),
    ("VERR_VM_DRIVER_LOAD_ERROR", MODULE_HINT),
    ("VERR_SUP_DRIVERLESS", MODULE_HINT),
    ("VERR_VM_DRIVER_VERSION_MISMATCH", MODULE_HINT),
    ("Kernel driver not accessible", "let your user use /dev/vboxdrv: see its group and rights"),
    ("VERR_VMX_IN_VMX_ROOT_MODE", _OTHER_HINT),
    ("VERR_SVM_IN_USE", _OTHER_HINT),
    ("VERR_VMX_NO_VMX", "turn on hardware virtualization in the firmware's settings"),
    ("VERR_SVM_NO_SVM", "turn on hardware virtualization in the firmware's settings"),
)
"""Signs of why no machine can start, and what to do about it."""


def _one_line(text: str) -> str:
    # Redact before shortening, or a folder's name would no longer be recognized.
    words = " ".join(redact(text).split())
    return "".join(filter(str.isprintable, words))[:_LONGEST_TEXT] or "it printed nothing"


def environment(home: os.PathLike[str], socket_id: str, search_path: str) -> dict[str, str]:
    """Return the environment for a VirtualBox of its own, with all that it keeps in `home`.

    Without an id of its own for the sockets, it would talk to the user's own service.
    """
    return {
        "PATH": search_path,
        "LC_ALL": "C",
        "HOME": os.fspath(home),
        "USER": socket_id,
        "LOGNAME": socket_id,
        "VBOX_USER_HOME": os.fspath(home),
        "VBOX_IPC_SOCKETID": socket_id,
    }
