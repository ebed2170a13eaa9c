"""VirtualBox's remote desktop: its own RDP server for one machine, with a user and a password.

It is in Oracle's extension pack. Only 127.0.0.1 leads to it, and VirtualBox's own library
VBoxAuthSimple checks the password, whose hash is in the machine's settings. Other packs are not
used: the VNC module that Debian's package contains also listens on port 5900 of all IPv6 addresses,
and no setting of its stops that.
"""

import hashlib
import secrets

from boincvm.errors import HypervisorMissingError
from boincvm.hypervisor.virtualbox.nvme import extension_pack
from boincvm.hypervisor.virtualbox.vboxmanage import VBoxManage, parse_table

ADDRESS = "127.0.0.1"
USER = "boincvm"
_PORTS = "33890-33989"
"""VirtualBox takes the first of them that is free."""
_LIBRARY = "VBoxAuthSimple"


def new_password() -> str:
    """Return a password that nobody can guess."""
    return secrets.token_urlsafe(12)


def modify(name: str, pack: str) -> list[str]:
    """Return the verb that turns it on; `pack` is the extension pack that it is in."""
    return [
        "modifyvm",
        name,
        *("--vrde", "on", "--vrdeextpack", pack),
        *("--vrdeaddress", ADDRESS, "--vrdeport", _PORTS),
        *("--vrdeauthtype", "external", "--vrdeauthlibrary", _LIBRARY),
        *("--vrdemulticon", "off", "--vrdereusecon", "off"),
    ]


def allow(name: str, password: str) -> list[str]:
    """Return the verb that lets the user in who knows the password."""
    digest = hashlib.sha256(password.encode()).hexdigest()
    return ["setextradata", name, f"{_LIBRARY}/users/{USER}", digest]


async def find_pack(manage: VBoxManage) -> str:
    """Return the name of the extension pack that it is in.

    Raises HypervisorMissingError, HypervisorError, HostDiskFullError.
    """
    pack = extension_pack(await manage.run("list", "extpacks"))
    if pack is None:
        raise HypervisorMissingError(
            "VirtualBox has no remote desktop without Oracle's extension pack",
            hint="install the extension pack of this version of VirtualBox"
            " (https://www.virtualbox.org/wiki/Downloads), or leave out --remote-desktop",
        )
    return pack


def bound_port(table: str) -> int | None:
    """Return the port that a running machine's server has, None if it has none yet.

    `table`: what `showvminfo --machinereadable` printed.
    """
    text = parse_table(table).get("vrdeport", "")
    return int(text) if text.isdecimal() and 0 < int(text) < 1 << 16 else None
