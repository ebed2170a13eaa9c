"""Debian's CA certificates as `update-ca-certificates` would set them up."""

import tempfile
from pathlib import Path

from boincvm.image import foreign
from boincvm.image.tree import Tree

_SOURCES = "usr/share/ca-certificates"
_OWN = "usr/local/share/ca-certificates"
_TARGET = "etc/ssl/certs"
_LIST = "etc/ca-certificates.conf"
_BUNDLE = "ca-certificates.crt"


def add_certificates(tree: Tree, programs: Tree) -> None:
    """Add all certificates of the package: as a list, as one file, and by subject hash.

    OpenSSL finds them by these hashes; that of `programs` makes them. Raises ImageBuildError.
    """
    directory = tree.directory / _SOURCES
    sources = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*.crt"))
    bundle = bytearray()
    with tempfile.TemporaryDirectory(dir=tree.directory.parent) as temporary:
        for source in sources:
            content = (directory / source).read_bytes().rstrip(b"\n") + b"\n"
            bundle += content
            name = _pem_name(source)
            (Path(temporary) / name).write_bytes(content)
            tree.add_link(f"{_TARGET}/{name}", f"/{_SOURCES}/{source}")
        foreign.run(programs, "openssl", "rehash", temporary)
        for path in sorted(Path(temporary).iterdir()):
            if path.is_symlink():
                tree.add_link(f"{_TARGET}/{path.name}", path.readlink().name)
    tree.add_directory(_OWN)
    tree.add_file(f"{_TARGET}/{_BUNDLE}", bytes(bundle))
    tree.add_file(_LIST, "".join(f"{source}\n" for source in sources).encode())


def _pem_name(source: str) -> str:
    """Return a certificate's file name as `update-ca-certificates` makes it."""
    name = Path(source).stem
    return (
        "".join({" ": "_", ",": "_", "(": "=", ")": "="}.get(sign, sign) for sign in name) + ".pem"
    )
