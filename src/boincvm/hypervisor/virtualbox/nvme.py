"""Whether VirtualBox has the NVMe controller that our machines' disks are on.

It is the only one of VirtualBox's whose driver is built into Debian's cloud kernel. VirtualBox has
it since 7.0; before, it is in Oracle's extension pack.
"""

import asyncio
import re

from boincvm.errors import HypervisorMissingError
from boincvm.hypervisor.virtualbox.home import Home
from boincvm.hypervisor.virtualbox.vboxmanage import Version

BUILT_IN_SINCE = (7, 0)
_NAME = re.compile(r" *[0-9]+: +(Oracle (?:VM )?VirtualBox Extension Pack) *$", re.MULTILINE)
_USABLE = re.compile(r"^Usable: +true *$", re.MULTILINE)


async def check_nvme(version: Version) -> None:
    """Check that machines can have NVMe disks.

    Raises HypervisorMissingError, HypervisorError, HostDiskFullError.
    """
    if version >= BUILT_IN_SINCE:
        return
    # It must not start the service of the user's own VirtualBox.
    home = await asyncio.to_thread(Home.make)
    try:
        packs = await home.manage.run("list", "extpacks")
    finally:
        await home.remove()
    if extension_pack(packs) is None:
        raise HypervisorMissingError(
            f"VirtualBox {version} has no NVMe disks without Oracle's extension pack",
            hint="install VirtualBox 7.0 or newer, or the extension pack of this version:"
            " https://www.virtualbox.org/wiki/Downloads",
        )


def extension_pack(packs: str) -> str | None:
    """Return the name of Oracle's pack, None if it cannot be used.

    `packs`: what `VBoxManage list extpacks` printed.
    """
    for pack in packs.split("Pack no.")[1:]:
        match = _NAME.match(pack)
        if match is not None and _USABLE.search(pack) is not None:
            return match[1]
    return None
