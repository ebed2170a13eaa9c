"""`vmrun`: how it is called, what it prints, and what its errors mean.

An error is a line that begins with "Error: ", on standard output, and a status that is not zero
(255 on Linux and macOS, -1 on Windows). Some versions print the line and end with status 0, so the
line counts too.
"""

import os
import re
from typing import NamedTuple

from boincvm.errors import HostDiskFullError, HypervisorError, HypervisorMissingError
from boincvm.hypervisor.management_command import answer_of
from boincvm.hypervisor.vmware.installation import INSTALL_HINT, MODULE_HINT, Product
from boincvm.redaction import redact

_LIMIT = 180.0
"""Seconds that a call may take; saving a large machine's memory takes the longest."""
_LONGEST_TEXT = 300
_ERROR = re.compile(r"^Error: (.*)$", re.MULTILINE)
_VERSION = re.compile(
    r"^vmrun version ([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3}) build-([0-9]{1,12})\s*$", re.MULTILINE
)
_VARIABLES = (
    *("HOME", "USER", "LOGNAME", "PATH", "TMPDIR", "XDG_RUNTIME_DIR"),
    *("SystemRoot", "TEMP", "TMP", "APPDATA", "LOCALAPPDATA", "USERPROFILE", "ProgramData"),
)
"""Variables that `vmrun` gets. A BOINC client's LD_LIBRARY_PATH, for one, is not for it."""

NOT_RUNNING = "The virtual machine is not powered on"
"""What `vmrun` says of a machine that has ended."""


class Version(NamedTuple):
    """A version of `vmrun`, which comes with its product."""

    major: int
    minor: int
    patch: int
    build: int
    """The build of the product: it grows from version to version, within one product."""

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}.{self.build}"


class VMwareError(HypervisorError):
    """What VMware has refused; `text` is what it said."""

    def __init__(self, message: str, *, text: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.text = text


class VMRun(NamedTuple):
    """Calls `vmrun` as the user that we are, without a login."""

    path: str
    product: Product
    version: Version

    def command(self, verb: str, *arguments: str) -> list[str]:
        """Return the command for one verb."""
        return [self.path, "-T", self.product, verb, *arguments]

    async def run(self, verb: str, *arguments: str) -> str:
        """Run one verb and return what it prints.

        Raises VMwareError, HypervisorError, HypervisorMissingError, HostDiskFullError.
        """
        try:
            answer = await answer_of(
                self.command(verb, *arguments),
                f"vmrun {verb}",
                environment=environment(),
                limit=_LIMIT,
            )
        except OSError as error:
            raise HypervisorMissingError(
                f"{self.path} does not start: {error}", hint=INSTALL_HINT
            ) from error
        text = answer.output + answer.errors
        if answer.status != 0 or _ERROR.search(text):
            raise error_from(verb, text)
        return text


def environment() -> dict[str, str]:
    """Return the environment in which `vmrun` runs."""
    inherited = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return {"PATH": os.defpath, **inherited, "LC_ALL": "C"}


def parse_version(output: str) -> Version | None:
    """Return the version that `vmrun` printed with its usage, None if there is none."""
    match = _VERSION.search(output)
    return Version(*map(int, match.groups())) if match is not None else None


def error_from(verb: str, output: str) -> VMwareError | HostDiskFullError:
    """Return the error for what `vmrun verb` printed."""
    lines = _ERROR.findall(output)
    text = _one_line(" ".join(lines) or output)
    if any(sign in text for sign in _DISK_FULL):
        return HostDiskFullError(
            f"the host's disk is full: {text}", hint="free some space and try again"
        )
    hint = next((advice for sign, advice in _ADVICE if sign in text), "")
    return VMwareError(f"VMware refused {verb}: {text}", text=text, hint=hint)


_DISK_FULL = ("not enough space in the file system", "No space left on device")
_ADVICE = (
    (
        "The file is already in use",
        "another VMware has the machine or its disk open: close the machine there",
    ),
    ("Cannot connect to the virtual machine", MODULE_HINT),
    ("Insufficient permission", "make sure that VMware may write to boincvm's cache directory"),
    ("The operation is not supported", "VMware Player can do less than Workstation and Fusion"),
)
"""Signs of why something was refused, and what to do about it."""


def _one_line(text: str) -> str:
    # Redact before shortening, or a folder's name would no longer be recognized.
    words = " ".join(redact(text).split())
    return "".join(filter(str.isprintable, words))[:_LONGEST_TEXT] or "it printed nothing"
