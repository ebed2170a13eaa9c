"""Which libvirt the driver talks to: the URI, and what follows from it."""

import os
from typing import NamedTuple
from urllib.parse import urlsplit

from boincvm.errors import PreferencesError, UsageError
from boincvm.host.users import is_root
from boincvm.hypervisor.preferences import preferences_file, read_preferences

VARIABLES = ("BOINCVM_LIBVIRT_URI", "LIBVIRT_DEFAULT_URI")
"""Environment variables that name the URI; the first one that is set counts. The second is
libvirt's own."""
_TRANSPORTS = ("", "unix")
"""What follows the "+" of a URI that leads to this host."""
SAVES = "qemu"
"""The hypervisor whose machines can be saved."""
FORWARDS = "qemu"
"""The hypervisor into whose machines ports of the host can lead."""
_CLOSES_WITH_US = ("qemu", "bhyve")
"""Hypervisors whose libvirt driver ends a machine when its maker's connection closes."""


class Uri(NamedTuple):
    """A URI that leads to a libvirt on this host."""

    text: str
    hypervisor: str
    """As libvirt names it: qemu, xen, vbox, bhyve, test."""
    is_system: bool
    """Whether the daemon is the whole host's and may run machines as any user."""

    @property
    def has_autodestroy(self) -> bool:
        return self.hypervisor in _CLOSES_WITH_US


class ChosenUri(NamedTuple):
    """The URI that counts here."""

    uri: Uri
    chosen_by: str
    """What names it: a variable of the environment, or the preferences; "" if nothing does."""


def chosen_uri() -> Uri:
    """Return the URI that the user has chosen, else that of the user's own QEMU machines.

    Raises UsageError, HostError.
    """
    return choose_uri().uri


def choose_uri() -> ChosenUri:
    """Do what `chosen_uri` does, and say what has chosen it. Raises UsageError, HostError."""
    for name in VARIABLES:
        if os.environ.get(name):
            return ChosenUri(parse_uri(os.environ[name]), name)
    preferred = read_preferences().libvirt
    if preferred is None:
        return ChosenUri(parse_uri("qemu:///system" if is_root() else "qemu:///session"), "")
    try:
        return ChosenUri(parse_uri(preferred), "your preferences")
    except UsageError as error:
        raise PreferencesError(
            error.message, hint=f"correct `libvirt` in {preferences_file()}"
        ) from error


def parse_uri(text: str) -> Uri:
    """Return what the URI says. Raises UsageError if it leads to another host."""
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise _refused(text, str(error)) from error
    hypervisor, _, transport = parts.scheme.partition("+")
    if not hypervisor:
        raise _refused(text, "it names no hypervisor")
    if parts.netloc or transport not in _TRANSPORTS:
        raise _refused(text, "the machine's files are on this host, and it leads to another one")
    return Uri(text, hypervisor, parts.path == "/system")


def _refused(text: str, why: str) -> UsageError:
    return UsageError(
        f"the libvirt URI {ascii(text)[:100]} cannot be used: {why}",
        hint=f"set {VARIABLES[0]} to qemu:///session or qemu:///system",
    )
