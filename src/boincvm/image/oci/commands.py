"""What programs find in an image that was made of a container, and the container's own command."""

import posixpath
import shlex
from typing import NamedTuple

from boincvm.image.manifest import Manifest, OciSettings

DIRECTORY = "/usr/lib/boincvm"
"""Where our own files are in the image, beside those of the container."""
COMMANDS = f"{DIRECTORY}/bin"
"""The directory of commands that are found if the container has none of the name."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(manifest: Manifest) -> dict[str, str]:
    """Return the variables that programs of the image find; empty if it was no container."""
    if manifest.oci is None:
        return {}
    found = {"SHELL": "/bin/sh"}
    for pair in manifest.oci.environment:
        name, _, value = pair.partition("=")
        found[name] = value
    found["PATH"] = f"{found.get('PATH') or _PATH}:{COMMANDS}"
    return found


class OwnCommand(NamedTuple):
    """The command that a container runs if nobody names another."""

    argv: tuple[str, ...]
    """The entry point and what follows it."""
    directory: str
    """Where it starts, an absolute path."""


def own_command(manifest: Manifest) -> OwnCommand | None:
    """Return the container's own command; None if it has none, or the image was no container."""
    if manifest.oci is None:
        return None
    program, *arguments = (*manifest.oci.entrypoint, *manifest.oci.command) or ("",)
    directory = manifest.oci.directory or "/"
    if not program:
        return None
    if "/" in program:  # so that no file of this computer is meant by it
        program = posixpath.normpath(posixpath.join(directory, program))
    return OwnCommand((program, *arguments), directory)


def described(settings: OciSettings) -> list[str]:
    """Describe a container's settings for people, one line each."""
    lines = [f"variable  {pair}" for pair in settings.environment]
    for title, words in (("entry", settings.entrypoint), ("command", settings.command)):
        if words:
            lines.append(f"{title:<9} {shlex.join(words)}")
    if settings.directory:
        lines.append(f"directory {settings.directory}")
    if settings.user:
        lines.append(f"user      {settings.user}, but programs run as root in a machine")
    return lines
