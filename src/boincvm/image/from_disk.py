"""An image made of the disk of a machine that has run."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from boincvm.errors import HostError, host_error
from boincvm.host.files import allocated_size
from boincvm.hypervisor.qcow2 import DiskRefusedError, check_disk
from boincvm.image.build_directory import build_directory
from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT, Manifest
from boincvm.image.names import check_image_name
from boincvm.image.object_files import describe, make_durable
from boincvm.image.store import Image, ImageStore
from boincvm.image.tools import check_space, run_tool


def image_of_disk(
    store: ImageStore, name: str, image: Image, layers: Sequence[Path], machine: str
) -> Manifest:
    """Make the image `name` of a disk: that of `image` with `layers` on it, the lowest one first.

    `machine`: whose disk it is. Nobody may use the disk meanwhile. Raises UsageError,
    ImageBuildError, HostError, HostDiskFullError.
    """
    check_image_name(name)
    try:
        for layer in layers:
            check_disk(layer)  # it names no other file of this host
        with build_directory(store.builds) as directory:
            parts = (image.kernel, image.initrd, image.root, *layers)
            size = sum(allocated_size(path.stat()) for path in parts)
            check_space(directory, size, f"an image of {machine}")
            target = directory / "object"
            target.mkdir()
            for file in (KERNEL, INITRD):
                shutil.copyfile(image.directory / file, target / file)
            source = f"json:{json.dumps(_node([image.root, *layers]))}"
            root = (target / ROOT).absolute()
            convert = ("qemu-img", "convert", "-q", "-O", "qcow2", source, root)
            run_tool(convert, dies_with_us=True)  # a controller may end at any time
            manifest = replace(
                image.manifest,
                files=tuple(describe(target / file) for file in (INITRD, KERNEL, ROOT)),
                machine=machine,
            )
            (target / MANIFEST).write_bytes(manifest.encode())
            make_durable(target)
            store.publish(name, target, manifest)
    except DiskRefusedError as error:
        raise HostError(f"the disk of {machine} cannot be used: {error}") from error
    except OSError as error:
        raise host_error(f"no image of {machine} can be made", error) from error
    return manifest


def _node(layers: Sequence[Path]) -> dict[str, object]:
    """Describe the disk for QEMU; the highest layer comes last."""
    *below, path = layers
    file = {"driver": "file", "filename": str(path.absolute())}
    return {"driver": "qcow2", "file": file, "backing": _node(below) if below else None}
