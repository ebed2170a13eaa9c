"""Make a machine what its seed says, and remember which one it is.

Like cloud-init: the host name at each boot, files and commands for a new machine only. A machine is
known as new until its files are written; commands that were interrupted do not run again.
"""

from __future__ import annotations

import os

from boincvm_agent import machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from boincvm_cloud.seed import Seed

STATE = "/var/lib/boincvm/cloud"
EACH_BOOT = "/var/lib/cloud/scripts/per-boot"
"""Where cloud-init has the scripts that run at each boot."""
_INSTANCE, _SCRIPT = "instance-id", "user-data"
_LONGEST_INSTANCE = 256
_LONGEST_NAME = 64


def apply(seed: Seed, root: str = "") -> list[list[str]]:
    """Write what the seed says, below `root`; return the commands to be run.

    Raises OSError, also for a name or a path that leads through something else than a directory.
    """
    if seed.host_name and not root:
        machine.set_host_name(seed.host_name)
    if instance(root) == seed.instance:
        return []
    if not root:
        machine.renew_machine_id()
    for file in seed.files:
        _write(root + file.path, file.content, file.mode)
    commands = list(seed.commands)
    if seed.script:
        script = f"{root}{STATE}/{_SCRIPT}"
        _write(script, seed.script, 0o700)
        commands.append([script])
    _write(f"{root}{STATE}/{_INSTANCE}", seed.instance.encode(), 0o644)
    os.sync()
    return commands


def instance(root: str = "") -> str | None:
    """Return which machine this is, None if no seed was ever read. Raises OSError."""
    try:
        file = os.open(f"{root}{STATE}/{_INSTANCE}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.read(file, _LONGEST_INSTANCE).decode("ascii", "replace")
    finally:
        os.close(file)


def restore_host_name() -> None:
    """Give the machine the name that a seed has given it before. Raises OSError."""
    with open("/etc/hostname", encoding="ascii", errors="replace") as file:
        name = file.read(_LONGEST_NAME).strip()
    if name:
        machine.set_host_name(name)


def scripts_of_each_boot(root: str = "") -> list[str]:
    """Return the scripts that run at each boot, in their order."""
    directory = root + EACH_BOOT
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [path for name in names if os.access(path := f"{directory}/{name}", os.X_OK)]


def _write(path: str, content: bytes, mode: int) -> None:
    """Write a file as a whole, with its directories; a former one is replaced."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = f"{path}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(part, flags, 0o600)
    try:
        os.fchmod(file, mode)
        while content:
            content = content[os.write(file, content) :]
        os.fsync(file)
    finally:
        os.close(file)
    os.rename(part, path)
