"""What a disk that is exported for clouds has before the image's initial RAM disk.

The kernel unpacks several archives one after the other. So the image itself is the same as in any
machine: the first program is another, and the root disk's first process comes along.
"""

from pathlib import Path

from boincvm.errors import ImageBuildError
from boincvm.image.agent_files import agent_archive, guest_directory
from boincvm.image.initrd import Entry, cpio

ARGUMENTS = 'rdinit=/cloud boincvm.shell="exec /dev/boincvm/start"'
"""For the kernel's command line."""
_PACKAGE = "boincvm_cloud"
_FROM_THE_AGENT = ("__init__.py", "machine.py")
_SCRIPTS = {
    "first.sh": "cloud",
    "start.sh": "devices/boincvm/start",
    "lease.sh": "devices/boincvm/lease",
}
"""By their files' names, where they are in the initial RAM disk. /devices is copied to /dev."""
_ARCHIVE = "devices/boincvm/cloud.pyz"
_MAIN = b"from boincvm_cloud.__main__ import main\n\nmain()\n"
_DIRECTORY, _PROGRAM, _FILE = 0o040755, 0o100755, 0o100644


def early_archive() -> bytes:
    """Return the archive, the same each time. Raises ImageBuildError."""
    try:
        scripts, modules = _read(guest_directory())
    except OSError as error:
        raise ImageBuildError(
            f"the sources of the cloud mode are missing from this installation: {error}",
            hint="install boincvm again: pip install --force-reinstall boincvm",
        ) from error
    entries = [Entry("devices", _DIRECTORY), Entry("devices/boincvm", _DIRECTORY)]
    entries += [Entry(_SCRIPTS[name], _PROGRAM, content) for name, content in scripts.items()]
    return cpio([*entries, Entry(_ARCHIVE, _FILE, agent_archive(modules))])


def _read(directory: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return scripts and modules by their names. Raises OSError."""
    scripts = {name: (directory / _PACKAGE / name).read_bytes() for name in _SCRIPTS}
    paths = [*(directory / _PACKAGE).glob("*.py")]
    paths += [directory / "boincvm_agent" / name for name in _FROM_THE_AGENT]
    modules = {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}
    return scripts, {**modules, "__main__.py": _MAIN}
