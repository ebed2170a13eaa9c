"""Resolve the links from a slot to the files in the project's directory.

A link is a symbolic link, or a small file whose first line is
`<soft_link>../../projects/X/f</soft_link>`. (lib/app_ipc.cpp, resolve_soft_link.)
"""

import os
import stat
from pathlib import Path

from boincvm.boinc.init_data import InitData
from boincvm.boinc.tags import element
from boincvm.byte_text import decoded
from boincvm.errors import InputFileError
from boincvm.host.files import open_descriptor
from boincvm.tree_entries import UnsafePathError, components, shown

_FIRST_LINE = 511
"""Bytes of the first line that BOINC reads."""


class SoftLinkError(InputFileError):
    """A link or a name leads out of the slot and the project's directory."""


def resolve(slot: Path, name: str, init_data: InitData | None) -> Path:
    """Return the file that the slot's `name` refers to, as an absolute path without links.

    The file need not exist, as outputs do not yet. It must lie in the slot or in the project's
    directory. Raises SoftLinkError if it does not, or if a file cannot be read.
    """
    try:
        if not components(os.fsencode(name)):
            raise UnsafePathError(f"{name!r} is not the name of a file")
    except (UnsafePathError, UnicodeEncodeError) as error:
        raise SoftLinkError(f"not a file of the slot: {error}") from error
    path = slot / name
    try:
        leads_to = None if path.is_symlink() else target(path)
        real = Path(os.path.realpath(path if leads_to is None else slot / leads_to))
        roots = [Path(os.path.realpath(root)) for root in _roots(slot, init_data)]
    except (OSError, ValueError) as error:  # ValueError: a NUL in a path
        reason = getattr(error, "strerror", None) or error
        raise SoftLinkError(f"{shown(os.fsencode(name))} cannot be resolved: {reason}") from error
    if not any(real.is_relative_to(root) and real != root for root in roots):
        raise SoftLinkError(
            f"{shown(os.fsencode(name))} leads to {shown(os.fsencode(real))}, which is in"
            " neither the slot nor the project's directory",
            hint="only files of the task and of its project may be used",
        )
    return real


def _roots(slot: Path, init_data: InitData | None) -> list[Path]:
    roots = [slot]
    if init_data is not None:
        project = init_data.project_path
        boinc = Path(init_data.boinc_directory)
        if project is not None:
            roots.append(project)
            if boinc.is_absolute() and project.name:
                roots.append(boinc / "projects" / project.name)
    return roots


def target(path: Path) -> str | None:
    """Return the target of the soft link at `path`; None if it is not a soft link."""
    try:
        # A FIFO must not be opened even for a moment: a writer waiting for a reader would go on
        # and then find no reader.
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        descriptor = open_descriptor(path, follow_links=False, wait=False)
    except FileNotFoundError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        line = os.read(descriptor, _FIRST_LINE).partition(b"\n")[0]
    finally:
        os.close(descriptor)
    if b"<soft_link>" not in line:
        return None  # a program, whose bytes are no text
    return element(decoded(line), "soft_link") or None
