"""The guest kernels that were built on this computer (`boincvm image kernel build`).

    kernels/NAME/kernel         the ELF file; mode 0555, for a User-mode Linux is a program
    kernels/NAME/kernel.json    what it was built from, and its digest
    kernels/lock                held while a name changes

Images take a copy of such a kernel (`boincvm image build --kernel NAME`); the driver for User-mode
Linux runs the one called `uml`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from boincvm.errors import ImageDamagedError, ImageMissingError, UsageError
from boincvm.host import locks
from boincvm.host.files import sync_directory
from boincvm.host.own_files import check_directory, make_directory, open_own
from boincvm.paths import guest_kernel, kernels_directory

TABLE = "kernel.json"
SMALL, UML = "small", "uml"
"""The names of the kernels that can be built: for virtual machines, and for User-mode Linux."""
NAMES = (SMALL, UML)
_FORMAT = 1
_MOST_BYTES = 1 << 16
"""The largest kernel.json, in bytes."""
_OLD = ".old"


@dataclass(frozen=True, slots=True)
class KernelRecipe:
    """Everything that decides what a kernel becomes; equal recipes give equal kernels."""

    builder: int
    """The version of the builder's own rules."""
    architecture: str
    """As `make ARCH=` takes it."""
    source: str
    """Debian's source package and its version, like `linux-source-7.3 7.3.4-1~bpo13+1`."""
    fragment: str
    """SHA-256 of what is laid over `tinyconfig`, and of the changes of the sources."""
    compiler: str
    """What compiler and linker say their versions are."""

    @property
    def key(self) -> str:
        """Return the digest by which a kernel of this recipe is recognized."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class GuestKernel:
    """A kernel that is here."""

    name: str
    path: Path
    """The ELF file."""
    release: str
    """As `uname -r` prints it."""
    size: int
    """Bytes."""
    sha256: str
    """Of the ELF file, in hexadecimal."""
    recipe: KernelRecipe
    built: datetime

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "path": str(self.path),
            "release": self.release,
            "size": self.size,
            "sha256": self.sha256,
            "built": self.built.isoformat(timespec="seconds"),
            "recipe": asdict(self.recipe),
        }


def read(name: str) -> GuestKernel:
    """Read what the kernel `name` is, without its contents.

    Raises UsageError, ImageMissingError, ImageDamagedError, HostError.
    """
    check_name(name)
    directory = check_directory(kernels_directory() / name)
    try:
        with open_own(directory / TABLE) as file:
            text = file.read(_MOST_BYTES)
            built = datetime.fromtimestamp((directory / TABLE).stat().st_mtime, UTC).astimezone()
        return _decode(name, json.loads(text), built)
    except FileNotFoundError as error:
        raise ImageMissingError(
            f"the kernel {name} was not built here", hint=f"build it: {build_command(name)}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(name, f"{directory / TABLE} cannot be read: {error}") from error


def contents(kernel: GuestKernel) -> bytes:
    """Return the ELF file's bytes. Raises ImageDamagedError unless they are as built."""
    try:
        content = kernel.path.read_bytes()
    except OSError as error:
        raise _damaged(kernel.name, f"the kernel {kernel.name} cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != kernel.sha256:
        raise _damaged(kernel.name, f"the kernel {kernel.name} was altered since it was built")
    return content


def list_kernels() -> list[GuestKernel]:
    """Return the kernels that are here. Raises ImageDamagedError, HostError."""
    found = []
    for name in NAMES:
        try:
            found.append(read(name))
        except ImageMissingError:
            continue
    return found


def publish(name: str, directory: Path, release: str, recipe: KernelRecipe) -> GuestKernel:
    """Give the file `kernel` in `directory` (on the same file system) its place under `name`.

    A kernel that had the name is replaced; machines that run with it keep it. Raises OSError.
    """
    path = directory / guest_kernel(name).name
    path.chmod(0o555)
    table: Mapping[str, object] = {
        "format": _FORMAT,
        "release": release,
        "size": path.stat().st_size,
        "sha256": _sha256(path),
        "recipe": asdict(recipe),
    }
    (directory / TABLE).write_text(json.dumps(table, sort_keys=True, indent=1) + "\n")
    root = kernels_directory()
    with locks.exclusive(root / "lock"):
        old = root / f"{name}{_OLD}"
        shutil.rmtree(old, ignore_errors=True)
        make_directory(root)
        if (root / name).exists():
            (root / name).rename(old)
        directory.rename(root / name)
        sync_directory(root)
        shutil.rmtree(old, ignore_errors=True)
    return read(name)


def remove(name: str) -> None:
    """Remove the kernel `name`. Images that were built with it keep their copy.

    Raises UsageError, ImageMissingError, OSError.
    """
    check_name(name)
    root = kernels_directory()
    with locks.exclusive(root / "lock"):
        if not (root / name).exists():
            raise ImageMissingError(
                f"the kernel {name} was not built here", hint="boincvm image kernel ls"
            )
        shutil.rmtree(root / name)


def check_name(name: str) -> None:
    """Raise UsageError unless a kernel can have that name."""
    if name not in NAMES:
        raise UsageError(
            f"there is no kernel {ascii(name)[:40]}", hint=f"choose one of: {', '.join(NAMES)}"
        )


def build_command(name: str) -> str:
    """Return the command that builds the kernel `name`."""
    return "boincvm image kernel build" + (" --uml" if name == UML else "")


def _decode(name: str, table: object, built: datetime) -> GuestKernel:
    if not isinstance(table, dict) or table.get("format") != _FORMAT:
        raise ValueError(f"expected an object of format {_FORMAT}")
    recipe = table["recipe"]
    texts = [table["release"], table["sha256"]]
    texts += [recipe[field] for field in ("architecture", "source", "fragment", "compiler")]
    numbers = [table["size"], recipe["builder"]]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("expected text")
    if not all(isinstance(number, int) for number in numbers):
        raise ValueError("expected numbers")
    return GuestKernel(
        name=name,
        path=guest_kernel(name),
        release=texts[0],
        size=numbers[0],
        sha256=texts[1],
        recipe=KernelRecipe(numbers[1], *texts[2:]),
        built=built,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _damaged(name: str, message: str) -> ImageDamagedError:
    return ImageDamagedError(
        message, hint=f"boincvm image kernel rm {name} && {build_command(name)}"
    )
