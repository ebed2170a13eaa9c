"""The files of boincvm itself that go into an image: agent, shared codec, init script."""

import ast
import hashlib
import io
import zipfile
from pathlib import Path

import boincvm
from boincvm.errors import ImageBuildError
from boincvm.image.tree import Attributes, Tree

AGENT = "usr/lib/boincvm/agent.pyz"
START = "usr/lib/boincvm/start.py"
"""The script that Python runs in the guest; an image holds it compiled. Parsing even a short source
costs the guest more than running it, because Python's parser has to be translated first
(docs/benchmarks.md)."""
START_SOURCE = (
    f"import sys\nsys.path.insert(0, '/{AGENT}')\nimport boincvm_agent.__main__\n".encode()
)
PYTHON = "/usr/bin/python3.11"
"""The Python that starts the agent, in an image of Debian."""
_MAIN = b"import boincvm_agent.__main__\n"
SHARED = (
    "__init__.py",
    "bus/__init__.py",
    "bus/stomp.py",
    "host/__init__.py",
    "host/filetree_posix.py",
    "tree_entries.py",
)
_EPOCH = (1980, 1, 1, 0, 0, 0)


def guest_directory() -> Path:
    """Return the directory of the guest's sources.

    In a wheel it lies within the package, in a checkout beside src. Raises ImageBuildError.
    """
    package = Path(boincvm.__file__).parent
    for directory in (package / "_guest", package.parents[1] / "guest"):
        if (directory / "boincvm_agent" / "__init__.py").is_file():
            return directory
    raise ImageBuildError(
        "the sources of the guest's agent are missing from this installation",
        hint="install boincvm again: pip install --force-reinstall boincvm",
    )


def init_script(python: str = PYTHON) -> bytes:
    """Return the initrd's first program, which starts the agent by the command `python`.

    Raises ImageBuildError.
    """
    script = (guest_directory() / "init").read_bytes()
    if script.count(b" " + PYTHON.encode() + b" ") != 1:
        raise ImageBuildError(
            f"the guest's init script does not start {PYTHON}",
            hint="report this: it is a bug in the builder",
        )
    return script.replace(PYTHON.encode(), python.encode())


def agent_sources() -> dict[str, bytes]:
    """Return the agent's modules, sorted by their path in the archive. Raises ImageBuildError."""
    directory = guest_directory()
    sources = {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in (directory / "boincvm_agent").rglob("*.py")
    }
    package = Path(boincvm.__file__).parent
    sources |= {f"boincvm/{name}": (package / name).read_bytes() for name in SHARED}
    sources["__main__.py"] = _MAIN
    return dict(sorted(sources.items()))


def imported_modules() -> tuple[str, ...]:
    """Return the modules of Python's library that the agent imports at any time. Raises
    ImageBuildError.
    """
    found = {"sys", "resource"}  # os.wait4 imports the second, in C
    for source in agent_sources().values():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    return tuple(sorted(name for name in found if not name.startswith("boincvm")))


def guest_digest() -> str:
    """Return the SHA-256 of all these files; a new value means that images should be rebuilt."""
    digest = hashlib.sha256()
    for name, content in {**agent_sources(), START: START_SOURCE, "init": init_script()}.items():
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def agent_archive(modules: dict[str, bytes]) -> bytes:
    """Make a zipapp of compiled modules: stored, sorted, without times; equal for equal modules."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(modules.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def add_agent(tree: Tree, archive: bytes, start: bytes) -> None:
    """Add the agent's archive and its compiled START script to the tree."""
    tree.add_file(AGENT, archive, Attributes(0o644))
    tree.add_file(f"{START}c", start, Attributes(0o644))
