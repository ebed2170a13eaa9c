"""The dpkg database, /var/lib/dpkg, of packages that are unpacked but not yet configured.

With it, dpkg in the guest finds them as if it had unpacked them itself. Formats: dpkg's own
documentation, deb-control(5), deb-triggers(5) and doc/triggers.txt.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence

from boincvm.image.tree import Attributes, Tree
from boincvm.image.unpack import Control

DATABASE = "var/lib/dpkg"
_SCRIPTS = ("preinst", "postinst", "prerm", "postrm", "config")
_LEFT_OUT_FILES = ("control",)
"""Control files that are not copied, because the status file has their content."""
_INTEREST = re.compile(r"interest(?P<kind>-await|-noawait)?\s+(?P<trigger>\S+)")


def add_status(tree: Tree, controls: Sequence[Control]) -> None:
    """Write the list of the packages that `controls` describe."""
    ordered = sorted(controls, key=lambda control: control.package.name)
    stanzas = [_stanza(tree, control) for control in ordered]
    tree.add_file(f"{DATABASE}/status", "\n\n".join([*stanzas, ""]).encode())


def add_database(tree: Tree, controls: Sequence[Control], files: Mapping[str, list[str]]) -> None:
    """Write all that dpkg needs to configure the packages; `files`: the names in each package."""
    ordered = sorted(controls, key=lambda control: control.package.name)
    add_status(tree, controls)
    tree.add_file(f"{DATABASE}/available", b"")
    tree.add_file(f"{DATABASE}/info/format", b"1\n")
    for name in ("updates", "parts", "alternatives"):
        tree.add_directory(f"{DATABASE}/{name}")
    for control in ordered:
        _add_info(tree, control, files.get(control.package.name, []))
    _add_triggers(tree, ordered)


def _stanza(tree: Tree, control: Control) -> str:
    first, _, rest = control.text.partition("\n")
    lines = [first, "Status: install ok unpacked", *rest.splitlines()]
    configuration = _configuration_files(tree, control)
    if configuration:
        lines += ["Conffiles:", *configuration]
    return "\n".join(lines).rstrip()


def _configuration_files(tree: Tree, control: Control) -> list[str]:
    """Return a line for each configuration file: its name and the MD5 digest of its content."""
    lines = []
    for line in control.files.get("conffiles", b"").decode("utf-8", "replace").splitlines():
        name = line.strip()
        if not name.startswith("/"):
            continue  # with a flag before it: a file to be removed
        path = tree.path(name.lstrip("/"))
        if path.is_file() and not path.is_symlink():
            digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            lines.append(f" {name} {digest}")
    return lines


def info_name(control: Control) -> str:
    """Return the base name of the package's files in /var/lib/dpkg/info, without an ending."""
    package = control.package
    return f"{package.name}:{package.architecture}" if control.is_multi_arch else package.name


def _add_info(tree: Tree, control: Control, files: list[str]) -> None:
    base = f"{DATABASE}/info/{info_name(control)}"
    names = ["/.", *(f"/{name}" for name in files)]
    tree.add_file(f"{base}.list", "".join(f"{name}\n" for name in names).encode())
    for name, content in control.files.items():
        if name not in _LEFT_OUT_FILES:
            mode = 0o755 if name in _SCRIPTS else 0o644
            tree.add_file(f"{base}.{name}", content, Attributes(mode))


def _add_triggers(tree: Tree, controls: Sequence[Control]) -> None:
    """Write which package is interested in which trigger.

    File triggers are listed in `File`; each other trigger has a file of its own.
    """
    paths: list[str] = []
    named: dict[str, list[str]] = {}
    for control in controls:
        text = control.files.get("triggers", b"").decode("utf-8", "replace")
        for line in text.splitlines():
            interest = _INTEREST.match(line.partition("#")[0].strip())
            if interest is None:
                continue
            wanted_by = info_name(control) + ("/noawait" if interest["kind"] == "-noawait" else "")
            if interest["trigger"].startswith("/"):
                paths.append(f"{interest['trigger']} {wanted_by}\n")
            else:
                named.setdefault(interest["trigger"], []).append(f"{wanted_by}\n")
    tree.add_file(f"{DATABASE}/triggers/File", "".join(paths).encode())
    tree.add_file(f"{DATABASE}/triggers/Unincorp", b"")
    for trigger, lines in named.items():
        if "/" not in trigger:
            tree.add_file(f"{DATABASE}/triggers/{trigger}", "".join(lines).encode())
