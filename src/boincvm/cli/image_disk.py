"""`boincvm image export` and `import`: images as disks of other hypervisors' formats."""

import argparse

from boincvm.cli.output import print_indented_json
from boincvm.cli.parser import add_verb

FORMATS = ("raw", "qcow2", "vdi", "vmdk", "vhdx", "ova")
"""Those of image/disk_formats.py, which a command's help does not wait for."""


def add_arguments(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verbs and their options."""
    export = add_verb(
        verbs,
        "export",
        "write an image as a bootable disk for other hypervisors",
        "Write an image as one bootable disk, or as an appliance (OVA) that VirtualBox imports.\n"
        "The machine has a shell on its first serial line, or runs a command, and then powers\n"
        "off. With --cloud a seed on a second disk sets it up: boincvm image seed.\n\n"
        "examples:\n  boincvm image export sci sci.qcow2\n"
        "  boincvm image export --cloud sci sci-cloud.qcow2\n"
        "  boincvm image export --command 'ecm 1000 </root/numbers' sci sci.ova",
    )
    export.add_argument("name", metavar="NAME")
    export.add_argument("file", metavar="FILE")
    export.add_argument(
        "--format", choices=FORMATS, help="the disk's format; default: what FILE's name tells"
    )
    runs = export.add_mutually_exclusive_group()
    runs.add_argument(
        "--command",
        metavar="COMMAND",
        dest="shell_command",
        help="what the machine's /bin/sh runs; default: a shell",
    )
    runs.add_argument(
        "--cloud",
        action="store_true",
        help="a machine for clouds, which a seed with the label cidata (NoCloud) sets up",
    )
    export.add_argument("--force", action="store_true", help="replace FILE if it exists")
    imported = add_verb(
        verbs,
        "import",
        "make an image of a disk that was exported",
        "Make an image of a disk or an appliance that boincvm image export has written, with what\n"
        "a machine of another hypervisor has changed on it since.\n\n"
        "example:\n  boincvm image import sci.qcow2 sci-2",
    )
    imported.add_argument("file", metavar="FILE")
    imported.add_argument("name", metavar="NAME", help="the image's name")
    imported.add_argument(
        "--format", choices=FORMATS, help="the disk's format; default: what FILE's name tells"
    )
    imported.add_argument(
        "--force", action="store_true", help="replace an image NAME that exists already"
    )


def export(arguments: argparse.Namespace) -> int:
    """Do what `arguments` say; return the exit code. Raises BoincvmError."""
    from pathlib import Path

    from boincvm.image.bootable_disk import SHELL
    from boincvm.image.disk_formats import format_of
    from boincvm.image.export import export_image
    from boincvm.image.interruption import terminable
    from boincvm.image.progress import to_standard_error
    from boincvm.image.store import ImageStore
    from boincvm.sizes import format_size

    path = Path(arguments.file)
    disk_format = arguments.format or format_of(path)
    command = SHELL if arguments.shell_command is None else arguments.shell_command
    with terminable(), ImageStore().open(arguments.name) as image:
        export_image(
            image,
            path,
            disk_format,
            command=None if arguments.cloud else command,
            force=arguments.force,
            progress=to_standard_error(),
        )
    size = path.stat().st_size
    if arguments.json:
        print_indented_json(
            {"name": image.name, "file": str(path), "format": disk_format, "size": size}
        )
    else:
        print(f"image {image.name} has been exported: {path} ({disk_format}), {format_size(size)}")
    return 0


def import_(arguments: argparse.Namespace) -> int:
    """Do what `arguments` say; return the exit code. Raises BoincvmError."""
    from pathlib import Path

    from boincvm.image.disk_formats import format_of
    from boincvm.image.import_disk import import_disk
    from boincvm.image.interruption import terminable
    from boincvm.image.progress import to_standard_error
    from boincvm.image.store import ImageStore

    path, name = Path(arguments.file), arguments.name
    disk_format = arguments.format or format_of(path)
    with terminable():
        manifest = import_disk(
            path,
            disk_format,
            name,
            ImageStore(),
            force=arguments.force,
            progress=to_standard_error(),
        )
    if arguments.json:
        print_indented_json({"name": name, "digest": manifest.digest})
    else:
        print(f"image {name} has been imported: {manifest.digest[:12]}")
    return 0
