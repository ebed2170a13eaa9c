"""Archives of containers, made as `docker save` and others make them."""

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

OCI = "application/vnd.oci.image"


class Entry(NamedTuple):
    """An entry of a layer."""

    name: str
    content: bytes = b""
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    target: str = ""
    user: int = 0
    group: int = 0
    time: int = 1_000_000_000


def directory(name: str, mode: int = 0o755) -> Entry:
    return Entry(name, kind=tarfile.DIRTYPE, mode=mode)


def link(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.SYMTYPE, mode=0o777, target=target)


def hard_link(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.LNKTYPE, target=target)


def tar_of(entries: Iterable[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type, info.mode, info.linkname = entry.kind, entry.mode, entry.target
            info.uid, info.gid, info.mtime = entry.user, entry.group, entry.time
            info.size = len(entry.content)
            archive.addfile(info, io.BytesIO(entry.content))
    return buffer.getvalue()


def zstd(content: bytes) -> bytes:
    return subprocess.run(
        ["zstd", "-cq"], input=content, capture_output=True, check=True, timeout=60
    ).stdout


PACKED = {"": bytes, "+gzip": lambda data: gzip.compress(data, mtime=0), "+zstd": zstd}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def config_of(layers: Iterable[bytes], architecture: str, settings: Mapping[str, object]) -> bytes:
    table = {
        "architecture": architecture,
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer)}" for layer in layers]},
    }
    return json.dumps(table).encode()


def blob(content: bytes) -> Entry:
    return Entry(f"blobs/sha256/{sha256(content)}", content)


def descriptor(content: bytes, kind: str, **more: object) -> dict[str, object]:
    digest = f"sha256:{sha256(content)}"
    return {"mediaType": kind, "digest": digest, "size": len(content), **more}


def oci_entries(
    layers: list[bytes],
    settings: Mapping[str, object] | None = None,
    *,
    architecture: str = "amd64",
    packing: str = "+gzip",
) -> tuple[list[Entry], dict[str, object]]:
    """Return the blobs of one container in an OCI layout, and the descriptor for an index."""
    config = config_of(layers, architecture, settings or {})
    packed = [PACKED[packing](layer) for layer in layers]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": descriptor(config, f"{OCI}.config.v1+json"),
            "layers": [descriptor(layer, f"{OCI}.layer.v1.tar{packing}") for layer in packed],
        }
    ).encode()
    blobs = [blob(content) for content in (config, manifest, *packed)]
    return blobs, descriptor(manifest, f"{OCI}.manifest.v1+json")


def layout(blobs: Iterable[Entry], *descriptors: dict[str, object]) -> list[Entry]:
    """Return the entries of an archive with the index that has these descriptors."""
    index = json.dumps({"schemaVersion": 2, "manifests": descriptors}).encode()
    version = b'{"imageLayoutVersion":"1.0.0"}'
    unique = {entry.name: entry for entry in blobs}
    return [Entry("oci-layout", version), *unique.values(), Entry("index.json", index)]


def oci_archive(
    path: Path,
    layers: list[bytes],
    settings: Mapping[str, object] | None = None,
    *,
    architecture: str = "amd64",
    packing: str = "+gzip",
) -> Path:
    """Write an OCI layout as a tar archive."""
    blobs, of_manifest = oci_entries(layers, settings, architecture=architecture, packing=packing)
    path.write_bytes(tar_of(layout(blobs, of_manifest)))
    return path


def docker_archive(
    path: Path,
    layers: list[bytes],
    settings: Mapping[str, object] | None = None,
    *,
    architecture: str = "amd64",
) -> Path:
    """Write what `docker save` wrote before it wrote OCI layouts."""
    config = config_of(layers, architecture, settings or {})
    name = f"{sha256(config)}.json"
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": name, "RepoTags": ["app:1"], "Layers": names}]
    entries = [Entry(name, config), Entry("manifest.json", json.dumps(manifest).encode())]
    seen: dict[bytes, str] = {}
    for at, layer in zip(names, layers, strict=True):
        if layer in seen:  # docker writes a link for a layer that it has written already
            entries.append(link(at, f"../{seen[layer]}"))
        else:
            seen[layer] = at
            entries.append(Entry(at, layer))
    path.write_bytes(tar_of(entries))
    return path
