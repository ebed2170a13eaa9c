"""The program with which a machine of a cloud becomes a guest on a controller's bus.

It is boincvm itself, as far as a guest needs it: a zip archive that any Python from 3.11 on runs,
with no other package.
"""

import ast
import io
import re
import zipfile
from pathlib import Path

import boincvm
from boincvm.errors import HostError, host_error

ENTRY = "boincvm.node.__main__"
_PACKAGE = "boincvm"
_MODULE = re.compile(rf"\b{_PACKAGE}(?:\.\w+)+")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def guest_program() -> bytes:
    """Return the archive, the same each time. Raises HostError."""
    root = Path(boincvm.__file__).parent.parent
    try:
        modules = _needed(root)
    except OSError as error:
        raise host_error(
            "the sources of boincvm, which the guest is made of, cannot be read", error, HostError
        ) from error
    if _PACKAGE + "/node/__main__.py" not in modules:
        raise HostError(
            "this installation of boincvm has no sources, which a guest is made of",
            hint="install it by pip, and write the seed there",
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in sorted(modules.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return buffer.getvalue()


def _needed(root: Path) -> dict[str, bytes]:
    """Return the sources of all modules of ours that ENTRY imports at any time. Raises OSError."""
    found: dict[str, bytes] = {}
    names = [ENTRY]
    seen = set()
    while names:
        name = names.pop()
        path = _source(root, name)
        if name in seen or path is None:
            continue
        seen.add(name)
        content = path.read_bytes()
        found[path.relative_to(root).as_posix()] = content
        names += _imports(content, name)
        while "." in name:  # the packages that it is in
            name = name.rpartition(".")[0]
            names.append(name)
    return found


def _source(root: Path, name: str) -> Path | None:
    """Return the file of a module or package, None for an attribute of one."""
    path = root.joinpath(*name.split("."))
    for candidate in (path / "__init__.py", path.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


def _imports(content: bytes, name: str) -> list[str]:
    """Return the names that a module imports from our package, of modules or of what is in them."""
    imported = []
    for node in ast.walk(ast.parse(content, name)):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            imported += _MODULE.findall(node.value)  # in a program for another process
    return [name for name in imported if name.partition(".")[0] == _PACKAGE]
